"""How the board behaves on a network and through the day: decisions without I/O."""
