"""On the board: poll, verify, preflight, shadow, hot-swap, watch, roll back."""

# Before any library that reports home.
import kedge_shared  # noqa: F401
