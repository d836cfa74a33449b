"""What code computes, read from the standard library's syntax trees; nothing here edits, and nothing knows a task.

tree         a tree: its model, its training loop, its files
source, parts
             a file for LibCST: bytes and back; its statements, each parsed once, and only if something asks for it
bindings     what names at a file's top stand for: imports, aliases, definitions
files        a tree's modules: syntax, and which module an import means
nodes        the nodes of syntax trees, walked fast
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
receivers    which classes an object is of that others hand on
code         a tree's functions, modules and classes, each read once
tensors, elements, small
             tensors computed for small sizes: what a mask is, however it is written
masks        causal masks: which values are one, where they are built
kept         masks that are kept by hand, and what is wrong with how they are kept
loops        values in the turns of loops: lists, what is carried on, what a loop leaves
picks, pieces, spots
             indices, cuts and joins of small tensors, and those whose elements say which position they are of
maps, windows
             square maps that windows of attention are written to, and what that comes to in small cases
attention    a softmax of scaled products whose result weighs values
masked       scores under masks: what hides keys, of which kind, and when
callers      the same as its callers make it: of how many keys, under which masks
updates      where a loss is learned from, its models, and the loop that leads to it
evaluations  forwards without a gradient, whose loss is looked at, in a run of updates
steps        the parts of an update: steps, clips, zeroings, by what is done
turns        the way from a loop over micro-batches to an update
draws        random numbers that are compared with a probability, and what hangs on them, by run
clocks       what lasts from one update to the next: where it steps, and what counts that
ramps        how a probability grows, found by computing it
origins      where a probability comes from that scopes hand on
trials       runs tried with several numbers of rows, and which options are epochs, extra steps, sizes, by what they do
cuts         where rows are cut, where micro-batches are counted, what a schedule's total is, by what trials show
groups       accumulation by hand, and whether it weighs as it should
autocast     the contexts that a forward runs in, and which expressions are its logits
playing      code gone through as Python would, with a few inputs, where what it does says what it is
gates, averages, judges
             what is given losses and stops a run, whether its average is right, and where it is asked
schedules, plans
             schedules of a length and the total that reaches them, and the plan of the run that they are for
keeping      where the objects of a class keep their schedules, and what steps these
requests     runs that are made on request, and what is kept between requests that they count by
compiling    where a run begins, and whether its model is compiled before
records      data classes and their objects
parsers      command lines: what each asks for, and what is one
options      where a scope keeps what it is told, and the way there from a command line
rows         rows of bits that are made of a text file, found by running what makes them
mapped       rows that are read from a mapped file, and whether they are the text's
reads        where what a name, a parameter or an attribute is set to is read
flows        what is done with a value, wherever it goes
settings     parameters and fields: who tells them, where they are read
switches     what turns off maps of all positions in chunks, and who cannot do without them
sizes        what sizes a model has, by what its constructor makes of them
seams        where a tree has what is patched and driven
seam         what that is: a place, and how a call of it is spelled
"""
