"""Data sets: read, split, curated."""
