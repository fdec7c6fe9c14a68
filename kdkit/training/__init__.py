"""Training: the loop, the run around it, checkpoints, choice of weights, log."""
