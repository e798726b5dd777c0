"""Settings: one's own password and tokens, users, webhooks."""
