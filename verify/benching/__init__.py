"""What each task changes of speed and memory, on one tree and one machine: turns, their ratios, and what is noise."""
