"""Telemetry: what boards measure, summed by device class and release."""
