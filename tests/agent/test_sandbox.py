"""The preflight child's walls, from inside, and what a candidate that hits them leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kedge_agent import landlock, sandbox, seccomp
from kedge_agent.blobs import BlobStore, HeldStore
from kedge_agent.children import Left, run_module
from kedge_agent.frames import Captured, LatestFrames
from kedge_agent.hotswap import HotEngine
from kedge_agent.pipeline import Loop
from kedge_agent.preflight_process import read_result
from kedge_agent.sinks.callback import Callback
from kedge_agent.sinks.queued import Queued
from kedge_agent.telemetry import Telemetry
from kedge_shared.errors import StorageError, TrustError
from tests.sim.camera import PICTURE
from tests.sim.engine import SimDetector
from tests.sim.store import put
from tests.waiting import PATIENCE, wait_for

linux_with_landlock = pytest.mark.skipif(
    landlock.version() < 4, reason="this kernel has no Landlock, or one that knows no network"
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A board's folder, not in memory: the child may use /dev, and so what lies in /dev/shm."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "blobs").mkdir(mode=0o700)
        (Path(folder) / "device.key").write_text("secret")
        yield Path(folder)


def child(home: Path, how: str, seconds: float = 30, **more: Any) -> Left:
    job = {"how": how, "blobs": str(home / "blobs"), "secret": str(home / "device.key"), **more}
    return asyncio.run(run_module("tests.sim.misbehaving", json.dumps(job).encode(), seconds))


@linux_with_landlock
def test_from_inside_there_is_nothing_to_take(home: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        left = child(home, "try", port=listening.getsockname()[1])
    assert left.status == 0, left.errors
    found = json.loads(left.output)
    reached = {name for name, what in found["tries"].items() if what == "done"}
    usual = {"blobs", "kill", "thread", "local socket"}
    assert reached <= usual, "files, network, programs and others' secrets are closed"
    assert {"thread", "local socket"} <= reached, "what runtimes need is open"
    assert found["told"] == {
        "uid": found["told"]["uid"], "nice": 19, "oom": 1000, "no_new_privs": True,
        "core": 0, "processes": 512,
    }  # fmt: skip
    assert {"limits", "privileges", "files"} <= set(found["walls"])


@pytest.mark.skipif(platform.machine() not in seccomp._ARCHITECTURES, reason="not known there")
def test_calls_that_no_engine_needs_are_denied_without_the_other_walls(home: Path) -> None:
    found = json.loads(child(home, "try", only="calls").output)
    assert found["walls"] == ["calls"]
    denied = {name for name, what in found["tries"].items() if what == "PermissionError"}
    assert {"trace", "program of the kernel", "spaces", "clone", "raw socket", "socket", "netlink",
            "network", "run"} <= denied  # fmt: skip
    assert {found["tries"][each] for each in ("thread", "local socket", "secret")} == {"done"}


def test_the_filter_is_what_the_kernel_reads() -> None:
    for known in seccomp._ARCHITECTURES.values():
        code = list(struct.iter_unpack("=HBBI", seccomp.program(known)))
        assert code[:3] == [(0x20, 0, 0, 4), (0x15, 1, 0, known.audit), (6, 0, 0, 0x50001)]
        assert code[-1] == (6, 0, 0, 0x7FFF0000)
        jumps = [(at, *each) for at, each in enumerate(code) if each[0] & 7 == 5]
        assert all(at + 1 + max(yes, no) < len(code) for at, _, yes, no, _ in jumps)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_a_user_that_owns_nothing(home: Path) -> None:
    left = child(home, "try", user=True)
    found = json.loads(left.output)
    assert "user" in found["walls"]
    assert found["told"]["uid"] != 0
    assert {found["tries"][each] for each in ("secret", "blobs", "kill", "write")} == {
        "PermissionError"
    }
    assert found["told"]["oom"] == 1000, "told before the user changed"


def test_a_kernel_without_landlock_is_not_believed_to_have_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert landlock.restrict([], []) is False


def test_a_crash(home: Path) -> None:
    left = child(home, "crash")
    result = read_result(left.status or 0, left.output, left.errors)
    assert (result.ok, result.short) == (False, False)
    assert "SIGSEGV" in result.error


def test_an_endless_loop_is_ended_by_whoever_waits(home: Path) -> None:
    started = time.monotonic()
    assert child(home, "loop", seconds=2).status is None
    assert time.monotonic() - started < PATIENCE


def test_an_endless_loop_that_nobody_waits_for_ends_by_itself(home: Path) -> None:
    left = child(home, "loop", seconds=60, cpu=0.5)
    assert left.signal in {"SIGXCPU", "SIGKILL"}
    assert not read_result(-24, b"", b"").short


def test_a_memory_bomb_ends_while_the_loop_answers_every_frame(home: Path) -> None:
    slots, got = LatestFrames(), []
    sink = Queued("test", lambda: Callback(got.append), 10_000)
    loop = Loop(slots, HotEngine(SimDetector("e")), [sink], Telemetry())  # type: ignore[arg-type]
    loop.start()
    given, halt = 0, threading.Event()

    def camera() -> None:
        nonlocal given
        while not halt.wait(0.02):
            slots.put(Captured(given, PICTURE, 0.0))
            given += 1

    feeding = threading.Thread(target=camera)
    feeding.start()
    left = child(home, "bomb", seconds=200, memory_mb=100)
    halt.set()
    feeding.join()
    wait_for(lambda: len(got) >= given - slots.dropped)
    loop.stop()
    sink.close()
    assert b"MemoryError" in left.errors
    assert given > 5
    # What a busy machine is late for is overwritten, as ever; nothing else is lost.
    assert len(got) == given - slots.dropped
    assert loop.pulse().errors_in_a_row == 0
    # 100 MiB of its own, and what interpreter and libraries may reserve beside it.
    assert float(left.output) < 100 + sandbox._RESERVED_MB, "it never took more than its share"


def test_a_store_that_was_opened_before(tmp_path: Path) -> None:
    plain = BlobStore(tmp_path / "blobs")
    one, two = put(plain, b"one"), put(plain, b"two")
    held = HeldStore(plain.root)
    late = put(plain, b"late")
    for each in plain.root.iterdir():
        each.unlink()
    for _ in range(2):
        assert held.read_verified(one, 10) == b"one", "from its beginning, each time"
        with held.open_verified(two, 3) as blob:
            assert bytes(blob.view) == b"two"
    assert (held.has(one), held.has(late)) == (True, False)
    with pytest.raises(StorageError, match="No such file"):
        held.read_verified(late, 10)
    with pytest.raises(TrustError, match="too large"):
        held.read_verified(one, 2)


def test_a_held_file_is_hashed_all_the_same(tmp_path: Path) -> None:
    plain = BlobStore(tmp_path / "blobs")
    one = put(plain, b"one")
    held = HeldStore(plain.root)
    (plain.root / one).write_bytes(b"owt")
    with pytest.raises(TrustError, match="altered"):
        held.read_verified(one, 10)
