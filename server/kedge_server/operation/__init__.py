"""Operation: backup, restore, check and collection, beside a server that runs."""
