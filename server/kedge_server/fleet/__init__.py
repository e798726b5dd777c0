"""The fleet as a whole."""
