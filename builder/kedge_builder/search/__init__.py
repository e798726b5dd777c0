"""Search over pruning, input size and precision, each point measured in the real runtime."""
