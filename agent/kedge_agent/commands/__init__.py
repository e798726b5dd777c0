"""What a person at the board may ask of the running updater, over a socket of its own."""
