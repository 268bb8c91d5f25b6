"""Training: the loop, the run folder, scores while training, resumption."""
