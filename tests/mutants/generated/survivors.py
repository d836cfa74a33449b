"""Mutants that no check kills because they are right, each with why."""

EQUIVALENT = {
    "training.at_least_float32.swapped-arguments.d4c8ec.1": "promote_types is symmetric",
    "training.accumulation_groups.dropped-statement.00f4c2.1": "its caller hands it a generator, its own iterator",
}
