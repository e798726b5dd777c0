"""Metrics: what Prometheus reads of the server."""
