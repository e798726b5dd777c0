"""Detectors: checkpoints read without running them, exported, described."""
