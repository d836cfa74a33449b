"""What changes: text for values that were found, and what nothing needs any more. Nothing here knows a task.

edits      edits from text, one visit a file, proof of meaning
comments   the comments of what is rewritten
donor      what is inserted, from reference/, in reference order
imports    where it is imported, as the file spells it
ranks      the order of statements that several patches put at one place
spelling   how a value is written where an edit needs it
options    an option for a scope, wherever it is kept and asked for
ramping    a probability on a ramp, and draws from a generator of their own
courses    what lasts from one update of a run to the next: a clock, a generator
rounds     runs in rounds that go on from what the one before has counted
handing    what is handed down the calls that lead to where it is needed
spent      statements that nothing needs once an expression is replaced
apart      statements whose results are read only at times, kept for these times
masks      the device of a mask, as text
windows    what clamps the columns that windows are written to
padding    what hides the padding of windows
classes    parameters, methods, entries, and statements beside others
kept       more that an object, a record or a module's dict keeps
gates      an average in place of each loss, where a gate tests it
schedules  another total for a schedule
replaying  a backward that runs a model again, under the autocast of its forward
requests   the total of a schedule for a run that is made on request
attention  the parts of an attention, as torch's function is given them
feeding    statements, loops and contexts that only feed an expression, as a run of them shows
loading    a loader in place of rows as they are cut
totals     the number of updates that a schedule is told
grouping, guarded, scored
           a loop that goes through groups, the update at the end of each, how much a loss scores in it
handed     names of a loop for the functions that it calls
"""
