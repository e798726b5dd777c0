"""An engine in a process of its own: for runtimes that hold Python's lock, or are not trusted."""
