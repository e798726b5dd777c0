"""What this agent can do besides loading an engine as it was sent (DeviceFacts.ways).

It chooses among plans, builds one itself, and takes a declared fallback. It loads no plan of
another release through a lean runtime.
"""

WAYS = ("plans", "build", "fallback")
