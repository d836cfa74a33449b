"""What code computes, read from the standard library's syntax trees; nothing here edits, and nothing knows a task.

files       a tree's modules: syntax, scopes, and which module an import means
names       scopes and what binds a name in each, in every form that Python has
values      one computation, one value: expressions with names, aliases and spelling gone
operations  the one table of what functions, methods, modules and operators mean
reader      functions read into values and effects, calls of what the tree defines followed
small       tensors computed for small sizes: what a mask is, however it is written
"""
