"""Training: state, schedule, one compiled step, checkpoints, and the loop that joins them."""
