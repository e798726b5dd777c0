"""Rollouts: cohorts, gates and stages are pure; progress applies them to the database."""
