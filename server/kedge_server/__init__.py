"""FastAPI service: artifacts, devices, rollouts."""
