"""Linux before 6.7, as every Jetson has it, where it differs for Kedge; on any Python."""

import errno
import fcntl
import mmap
import os

_GET_SEALS, _SEAL_WRITE = 1034, 8
_map = mmap.mmap


def mapped(fd, length, flags=mmap.MAP_SHARED, **more):
    """Maps as such a kernel does: not write-sealed memory for all, not to read it either."""
    if flags & mmap.MAP_SHARED and _seals(fd) & _SEAL_WRITE:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return _map(fd, length, flags=flags, **more)


def _seals(fd):
    try:
        return fcntl.fcntl(fd, _GET_SEALS)
    except OSError:  # not of memory
        return 0
