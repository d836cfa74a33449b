"""A dashboard that trains a model and watches it."""
