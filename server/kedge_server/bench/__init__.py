"""Latency measured on a board: jobs that builders sign and workers claim."""
