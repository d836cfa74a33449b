"""What has changed since a commit, which judges can notice it, and whether the tree's own tests shrank; no torch."""
