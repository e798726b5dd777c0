"""FastAPI service: artifacts, devices, rollouts."""

# Before any library that reports home.
import kedge_shared  # noqa: F401
