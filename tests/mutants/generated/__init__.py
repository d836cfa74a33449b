"""Mutants that operators make, and what came of them: operators, lines (whose they are), run, report, survivors."""
