"""Trained weights in; measured, gated and signed builds for each device class out."""
