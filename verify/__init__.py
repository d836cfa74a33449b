"""One judge a task, and what runs them on a tree."""
