"""Boards that come in: one-time tokens, those who wait, announced keys."""
