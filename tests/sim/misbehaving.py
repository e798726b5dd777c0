"""A child that does, inside the preflight's sandbox, what a candidate engine may do."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from kedge_agent import sandbox, seccomp

_NEW_USER = 0x10000000


def crash() -> None:
    ctypes.string_at(0)


def loop() -> None:
    while True:
        pass


def bomb() -> None:
    kept = []
    try:
        while True:
            kept.append(bytearray(8 * 2**20))
    finally:
        # Not getrusage: what its parent had when it was forked counts there.
        status = Path("/proc/self/status").read_text()
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def _call(argument: int, **numbers: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    number = numbers[platform.machine()]
    found = libc.syscall(ctypes.c_long(number), ctypes.c_long(argument), 0, 0, 0, 0)
    if found == 0 and number in {56, 220}:
        os._exit(0)  # the child that should not be
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _thread() -> None:
    done = threading.Event()
    threading.Thread(target=done.set).start()
    if not done.wait(10):
        raise TimeoutError


def tries(secret: str) -> dict[str, str]:
    """Returns what came of each attempt: ``done`` or the error."""
    attempts = {
        "secret": lambda: Path(secret).read_text(),
        "blobs": lambda: list(Path(secret).parent.joinpath("blobs").iterdir()),
        "write": lambda: Path(secret).parent.joinpath("blobs", "new").write_text("x"),
        "temporary": lambda: Path("/tmp/kedge-was-here").write_text("x"),
        "environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
        "network": lambda: socket.socket().connect(("127.0.0.1", int(sys.argv[1]))),
        "run": lambda: subprocess.run(["/bin/true"], check=True),
        "kill": lambda: os.kill(os.getppid(), 0),
        # By number: Python has no word for some of them.
        "trace": lambda: _call(0, x86_64=101, aarch64=117),
        "program of the kernel": lambda: _call(0, x86_64=321, aarch64=280),
        "spaces": lambda: _call(_NEW_USER, x86_64=272, aarch64=97),
        "clone": lambda: _call(_NEW_USER | signal.SIGCHLD, x86_64=56, aarch64=220),
        "raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
        "socket": lambda: socket.socket().close(),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "local socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "thread": _thread,
    }
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            found[name] = "done"
        except OSError as error:
            found[name] = type(error).__name__
    return found


def told() -> dict[str, object]:
    status = Path("/proc/self/status").read_text()
    return {
        "uid": os.getuid(),
        "nice": os.nice(0),
        "oom": int(Path("/proc/self/oom_score_adj").read_text()),
        "no_new_privs": "NoNewPrivs:\t1" in status,
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "processes": resource.getrlimit(resource.RLIMIT_NPROC)[0],
    }


def main() -> None:
    job = json.load(sys.stdin)
    sys.argv.append(str(job.get("port", 1)))
    if job.get("user"):  # also where Python lies beneath somebody's home: all of it is imported
        sandbox._reads = lambda *_: True  # type: ignore[assignment]
    if job.get("only") == "calls":
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # no new privileges: a filter asks for that
        walls = ("calls",) if seccomp.restrict() else ()
    else:
        walls = sandbox.enter(
            [Path(job["blobs"])], memory_mb=job.get("memory_mb", 0), cpu_seconds=job.get("cpu", 0)
        )
    how = job["how"]
    if how in {"crash", "loop", "bomb"}:
        {"crash": crash, "loop": loop, "bomb": bomb}[how]()
    print(json.dumps({"walls": walls, "tries": tries(job["secret"]), "told": told()}))


if __name__ == "__main__":
    main()
