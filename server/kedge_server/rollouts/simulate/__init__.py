"""Rollouts of simulated fleets: how often a gate halts a good release, and what a bad one costs.

Needs numpy, which the ``server`` extra brings.
"""
