"""Power cuts at every step of a write: the old file or the new one, never anything else."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

from kedge_agent import disk
from kedge_agent.disk import settle, write_whole
from kedge_shared.errors import StorageError
from tests.sim.torn_disk import PowerCut, TornDisk

FOLDER = Path("/state")
FILE = FOLDER / "slots.json"
OLD, NEW = b"old state " * 20, b"the state after " * 30
SEEDS = range(60)


def found_after(cut_at: int | None, seed: int) -> bytes:
    torn = TornDisk({FILE: OLD}, cut_at)
    with contextlib.suppress(PowerCut):
        write_whole(FILE, NEW, disk=torn)
    return torn.after_the_cut(random.Random(seed)).get(FILE, b"gone")


def steps() -> int:
    torn = TornDisk({FILE: OLD})
    write_whole(FILE, NEW, disk=torn)
    return torn.operations


def test_a_cut_at_any_step_leaves_the_old_file_or_the_new() -> None:
    seen = {found_after(at, seed) for at in range(steps()) for seed in SEEDS}
    assert seen == {OLD, NEW}


def test_what_was_written_stays_written() -> None:
    assert {found_after(None, seed) for seed in SEEDS} == {NEW}


class Forgetful(TornDisk):
    """Leaves one kind of step out: what a careless writer would do."""

    def __init__(self, left_out: str, cut_at: int | None = None) -> None:
        super().__init__({FILE: OLD}, cut_at)
        setattr(self, left_out, lambda *_: None)


@pytest.mark.parametrize("left_out", ["sync", "sync_folder"])
def test_the_simulator_notices_careless_writers(left_out: str) -> None:
    seen = set()
    for seed in SEEDS:
        torn = Forgetful(left_out)
        write_whole(FILE, NEW, disk=torn)
        seen.add(torn.after_the_cut(random.Random(seed)).get(FILE, b"gone"))
    assert seen != {NEW}


def test_the_simulator_notices_writing_in_place() -> None:
    seen = set()
    for seed in SEEDS:
        torn = TornDisk({FILE: OLD})
        torn.write(FILE, NEW, 0o600)
        seen.add(torn.after_the_cut(random.Random(seed))[FILE])
    assert len(seen) > 2


def test_bytes_that_another_process_left_behind_are_synced_before_they_get_a_name() -> None:
    """A download that was whole when its process was killed was in memory only."""
    for cut_at in (None, 0, 1, 2):
        for seed in SEEDS:
            torn = TornDisk({})
            torn.write(FOLDER / "partial", NEW, 0o600)
            torn.operations, torn._cut_at = 0, cut_at
            with contextlib.suppress(PowerCut):
                settle(FOLDER / "partial", FILE, torn)
            after = torn.after_the_cut(random.Random(seed))
            assert after.get(FILE, NEW) == NEW
            assert cut_at is not None or FILE in after


def test_the_real_disk_brings_file_and_folder_to_the_medium_around_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the simulator takes for granted: each step asks the kernel, in this order."""
    real, done = os.fsync, []

    def fsync(fd: int) -> None:
        done.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(tmp_path / "slots.json", OLD)
    assert done == [".slots.json.new", tmp_path.name]
    assert (tmp_path / "slots.json").read_bytes() == OLD


@pytest.mark.parametrize("step", ["write", "sync", "rename", "sync_folder"])
@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written")]
)
def test_a_disk_that_refuses_leaves_the_old_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, said: str
) -> None:
    path = tmp_path / "slots.json"
    write_whole(path, OLD)

    def refuses(*_: Any) -> None:
        raise OSError(number, "refused")

    with monkeypatch.context() as patched:
        patched.setattr(disk.RealDisk, step, refuses)
        with pytest.raises(StorageError, match=said):
            write_whole(path, NEW)
    assert path.read_bytes() == (NEW if step == "sync_folder" else OLD)
    assert [each.name for each in tmp_path.iterdir()] == ["slots.json"]
