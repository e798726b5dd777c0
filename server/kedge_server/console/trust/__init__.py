"""Keys and trust: who may sign what, until when, and the boards' own keys."""
