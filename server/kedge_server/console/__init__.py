"""The operators' console: pages that the server renders, live by its events."""
