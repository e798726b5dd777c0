"""What Kedge claims, measured: each module is one run with a table and JSON."""
