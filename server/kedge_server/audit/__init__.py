"""Who did what, and what the server did by itself; each row holds the hash of the last."""
