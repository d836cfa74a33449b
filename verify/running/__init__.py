"""Who runs a check, in what process, within what limits, and what it may say."""
