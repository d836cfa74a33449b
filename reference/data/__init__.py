"""Training on text corpora."""
