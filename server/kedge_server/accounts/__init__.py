"""Who operates the fleet: users, API tokens, sessions, and what each role may do."""
