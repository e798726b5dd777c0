"""Keys, signatures and the way to the server."""
