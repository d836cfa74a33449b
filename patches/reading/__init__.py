"""What code computes, read from the standard library's syntax trees; nothing here edits, and nothing knows a task.

files        a tree's modules: syntax, and which module an import means
names        scopes and what binds a name in each, in every form that Python has
values       one computation, one value: expressions with names, aliases and spelling gone
signatures   what functions, methods, modules and operators are called: one table
operations   what they compute, in one normal form
shapes       how many dimensions a tensor has, and how long they are, where the code tells
numbers      which values are Python numbers for certain
frames       what is kept while code is read: names, effects, what they stand under
statements, expressions, calls, attributes
             functions read into values and effects, calls of what the tree defines followed
classes      which names a class gives a meaning
code         a tree's functions, modules and classes, each read once
tensors, elements, small
             tensors computed for small sizes: what a mask is, however it is written
masks        causal masks: which values are one, where they are built, whether they are kept
attention    a softmax of scaled products whose result weighs values
updates      where a loss is learned from, its models, and the loop that leads to it
regions      the statements by which a model runs and its loss is made
counts       micro-batches, and guesses at their number, computed for small numbers of rows
groups       accumulation by hand, and whether it weighs as it should
autocast     the contexts that a forward runs in, and which expressions are its logits
compiling    where a run begins, and whether its model is compiled before
records      data classes and their objects
parsers      command lines: what each asks for, and what is one
options      where a scope keeps what it is told, and the way there from a command line
"""
