"""Devices: enrolment, polls, assignments, reports."""
