"""Devices: found by the language of selectors, one with all that is known of it, tags."""
