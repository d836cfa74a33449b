"""Codemods that carry a BitTransformerLM tree through the named tasks: one file a task, and the rooms behind them.

task       what a task is, and what is found and decided about it: the data classes of all rooms
known      which tasks there are

files/     how a tree lies on disk; nothing here knows what code means
reading/   what code computes
editing/   what changes
applying/  how it is written, and taken back

Each room knows those above it, none a task.
"""
