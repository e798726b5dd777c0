"""Which form of a build a board runs; how a plan is built there, and sealed."""
