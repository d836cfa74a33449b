"""Any training script, judged while it runs: what torch is asked to do is watched, and no name in it is known."""
