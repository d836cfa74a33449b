"""How tasks are applied and taken back: planned, looked at again, written or not at all. Nothing here knows a task.

asked         what a command line asks for: tasks, and the tree
opening       a tree under its lock
skips         comments that leave a task out of a statement
settling      which findings count: not those left out, and where one site is meant, only that
survey        what a tree holds: remembered, or found in two processes
beside        work in a forked process
engine        find, plan, prove that twice is once
consequences  what a change breaks elsewhere
transaction   lock, journal, swaps, recovery
originals     what a tree was before its patches, kept outside of it
merge         three-way merge of lines
revert        replay without a task, and merge later hand edits
driver        begins a tree's bitpatch_seams.py
"""
