"""Code of a tree played in plain Python, for what cannot be told by reading it; no code of a tree runs.

kinds      things of a tree, what is not known, scopes; and World: what differs from one use to another
walk       one walk, and its bounds
statements, expressions, names, calls
           what Python does: blocks and targets, operators and comprehensions, modules and classes, functions
figures    a World for a few numbers: what functions and objects do with them in turn
player     a World for a run over a few rows: what each expression is, how often an optimizer steps
plays      where a run begins, and what stands for its parameters
batches    rows, micro-batches, loaders, schedules, and which rows something is made of
iterables, outside
           what functions and methods of Python's own and of libraries do with these
texts      a World for a small text: what is made of it, and by which expressions
disk       files that are not real, paths to them, and what a scope is given
grids      small tensors and arrays
libraries  what functions of libraries do with texts, numbers and grids
"""
