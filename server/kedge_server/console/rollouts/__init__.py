"""Rollouts: the list, one with its stages and gates, a new one with its preview, what is done."""
