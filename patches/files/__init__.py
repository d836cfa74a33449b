"""How a tree lies on disk: reached safely, decoded, bounded, settled. Nothing here knows what code means.

places     files reached without being led elsewhere; two that change places
tracked    which files a folder has, as git sees it
encodings  the text of a file's bytes
nesting    how deep a text nests, counted before it is parsed
positions  where a place in a changed text stands in the user's file
settled    what a tree's pyproject.toml settles
spellings  what options are called elsewhere
"""
