"""What this machine has, which engines work on it, and what to install for those that do not."""
