"""Events: what happened, for people and programs that wait for it."""
