"""On the board: poll, verify, preflight, shadow, hot-swap, watch, roll back."""
