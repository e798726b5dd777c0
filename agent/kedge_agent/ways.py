"""What this agent can do besides loading an engine as it was sent (DeviceFacts.ways).

It chooses among plans, loads one of an older release through that release's lean runtime, builds
one itself, and takes a declared fallback.
"""

WAYS = ("plans", "lean", "build", "fallback")
