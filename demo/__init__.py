"""The whole loop on one machine: ``python -m demo`` (``make demo``)."""
