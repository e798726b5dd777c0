"""The fleet at a glance: health, releases by class, who lags behind, what is being rolled out."""
