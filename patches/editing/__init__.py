"""What changes: text for values that were found, and what nothing needs any more. Nothing here knows a task.

spelling   how a value is written where an edit needs it
options    an option for a scope, wherever it is kept and asked for
spent      statements that nothing needs once an expression is replaced
apart      statements whose results are read only at times, kept for these times
masks      the device of a mask, as text
attention  the parts of an attention, as torch's function is given them
"""
