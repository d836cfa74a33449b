"""One judge a task, and what runs them on a tree.

What is promised of a tree that means harm: it finds no secrets in the processes of bitpatch, passes no limit for
longer than a moment, and nothing of it outlives its check. What is not: it runs in the process of its judge, and can
deceive it; and it reads what the user may read. docs/security.md says more, and how to run the gate so that it does
not matter: no secrets, a token that only reads, a container without network.
"""
