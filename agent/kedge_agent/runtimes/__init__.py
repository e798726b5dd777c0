"""One file a runtime; each imports its vendor only when asked."""
