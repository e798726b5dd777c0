"""The audit log: who did what, found again, and whether its chain holds."""
