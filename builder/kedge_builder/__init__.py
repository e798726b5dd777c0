"""Trained weights in; measured, gated and signed builds for each device class out."""

# Before any library that reports home.
import kedge_shared  # noqa: F401
