"""The order of the training runs, and a finished run judged."""
