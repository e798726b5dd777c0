"""Releases: what the signed targets list, as operators see it."""
