"""Installing from a stick: a bundle answers as a server does, and is trusted no more than one."""
