"""How one comes in and leaves."""
