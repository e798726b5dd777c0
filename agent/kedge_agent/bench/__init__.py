"""``kedge bench-worker``: this board measures candidates for builders elsewhere."""
