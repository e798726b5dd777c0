"""What is measured of an engine, on the real artifact."""
