"""INT8 in the form each runtime wants."""
