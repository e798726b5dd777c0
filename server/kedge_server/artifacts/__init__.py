"""Immutable bytes named by their SHA-256, in a folder or in S3-compatible storage."""
