"""Webhooks: events sent to where somebody wants them, signed, and until they arrive."""
