"""What counts as good enough."""
