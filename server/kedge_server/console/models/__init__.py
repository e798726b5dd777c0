"""Models and releases: what was published, measured and signed, who runs it, two side by side."""
