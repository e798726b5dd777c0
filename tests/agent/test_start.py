"""What serves after a start: always a verified engine, never for ever one that crashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kedge_agent import start
from kedge_agent.blobs import BlobStore
from kedge_agent.local_protocol import SLOTS_FILE, STARTS_ENV, Slot, Slots
from kedge_agent.slots import read_slots
from kedge_agent.start import choose_at_start, forget_starts, load_at_start
from kedge_shared.errors import StorageError, TrustError
from tests.sim.engine import SimDetector, slot_of

OLD, NEW = slot_of("old"), slot_of("new")


@pytest.mark.parametrize(
    ("slots", "starts", "expected"),
    [
        (Slots(), 0, "nothing"),
        (Slots(active=NEW), 0, "active"),
        (Slots(active=NEW), 99, "active"),
        (Slots(active=NEW, previous=OLD), 99, "active"),
        (Slots(active=NEW, previous=OLD, probation=True), 1, "active"),
        (Slots(active=NEW, previous=OLD, probation=True), 2, "active"),
        (Slots(active=NEW, previous=OLD, probation=True), 3, "previous"),
        (Slots(active=NEW, previous=OLD, probation=True), 4, "previous"),
        (Slots(active=NEW, probation=True), 9, "active"),
        (Slots(previous=OLD), 0, "previous"),
    ],
)
def test_choice(slots: Slots, starts: int, expected: str) -> None:
    assert choose_at_start(slots, starts) == expected


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Releases whose files were altered on the board."""
    bad: set[str] = set()

    def load(slot: Slot, *_: object) -> SimDetector:
        if slot.release in bad:
            raise TrustError("hash", f"{slot.release} was altered on this board")
        return SimDetector(slot.release)

    monkeypatch.setattr(start, "load_detector", load)
    monkeypatch.setattr(start, "fits", lambda *_: True)
    return bad


@pytest.fixture
def short(broken: set[str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Releases that find no memory where the admission thought there was some."""
    wants: set[str] = set()
    load = start.load_detector

    def loads(slot: Slot, *given: Any) -> Any:
        if slot.release in wants:
            raise MemoryError
        return load(slot, *given)

    monkeypatch.setattr(start, "load_detector", loads)
    return wants


def begin(folder: Path, slots: Slots) -> start.Begun:
    return load_at_start(folder, slots, BlobStore(folder), {}, 1)


def test_probation_keeps_the_older_engine_beside_it(tmp_path: Path, broken: set[str]) -> None:
    begun = begin(tmp_path, Slots(active=NEW, previous=OLD, probation=True, deployment="d"))
    assert begun.active is not None
    assert begun.previous is not None
    assert (begun.active.slot, begun.previous.slot) == (NEW, OLD)


def test_a_board_without_room_for_two_starts_with_the_newer_alone(
    tmp_path: Path, broken: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "fits", lambda *_: False)
    begun = begin(tmp_path, Slots(active=NEW, previous=OLD, probation=True, deployment="d"))
    assert begun.active is not None
    assert (begun.active.slot, begun.previous, begun.fell_back) == (NEW, None, "")


def test_an_older_engine_that_finds_no_memory_beside_it_does_not_end_the_runner(
    tmp_path: Path, short: set[str]
) -> None:
    short.add("old")
    begun = begin(tmp_path, Slots(active=NEW, previous=OLD, probation=True, deployment="d"))
    assert begun.active is not None
    assert (begun.active.slot, begun.previous, begun.fell_back) == (NEW, None, "")


def test_where_the_newer_engine_finds_no_memory_the_older_one_serves(
    tmp_path: Path, short: set[str]
) -> None:
    short.add("new")
    begun = begin(tmp_path, Slots(active=NEW, previous=OLD))
    assert begun.active is not None
    assert (begun.active.slot, begun.fell_back) == (OLD, "out of memory")
    short.add("old")
    assert begin(tmp_path, Slots(active=NEW, previous=OLD)).active is None


def test_an_altered_engine_is_not_loaded_and_the_older_one_serves(
    tmp_path: Path, broken: set[str]
) -> None:
    broken.add("new")
    begun = begin(tmp_path, Slots(active=NEW, previous=OLD))
    assert begun.active is not None
    assert begun.active.slot == OLD
    assert "altered" in begun.fell_back


def test_both_altered_serves_nothing_rather_than_something_unsigned(
    tmp_path: Path, broken: set[str]
) -> None:
    broken.update({"new", "old"})
    assert begin(tmp_path, Slots(active=NEW, previous=OLD)).active is None


def test_a_crash_loop_in_probation_takes_the_older_engine(tmp_path: Path, broken: set[str]) -> None:
    slots = Slots(active=NEW, previous=OLD, probation=True, deployment="d")
    served = []
    for _ in range(4):
        begun = begin(tmp_path, slots)
        assert begun.active is not None
        served.append(begun.active.slot.release)
    assert served == ["new", "new", "old", "old"]
    assert "starts in probation" in begun.fell_back


def test_a_crash_loop_on_a_disk_that_cannot_be_written_takes_the_older_engine(
    tmp_path: Path, broken: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: Path, _: bytes) -> None:
        raise StorageError(f"{path} cannot be written: Read-only file system")

    monkeypatch.setattr(start, "write_whole", refuses)
    slots = Slots(active=NEW, previous=OLD, probation=True, deployment="d")
    served = []
    for in_a_row in (1, 2, 3, 4):
        monkeypatch.setenv(STARTS_ENV, str(in_a_row))
        begun = begin(tmp_path, slots)
        assert begun.active is not None
        served.append(begun.active.slot.release)
    assert served == ["new", "new", "old", "old"]


def test_crashes_before_the_swap_are_not_the_new_engines(
    tmp_path: Path, broken: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STARTS_ENV, "7")
    begun = begin(tmp_path, Slots(active=NEW, previous=OLD, probation=True, deployment="d"))
    assert begun.active is not None
    assert begun.active.slot == NEW


def test_health_resets_the_count_and_another_deployment_begins_anew(
    tmp_path: Path, broken: set[str]
) -> None:
    slots = Slots(active=NEW, previous=OLD, probation=True, deployment="d")
    begin(tmp_path, slots)
    begin(tmp_path, slots)
    forget_starts(tmp_path, "d")
    for expected in ("new", "new", "old"):
        begun = begin(tmp_path, slots)
        assert begun.active is not None
        assert begun.active.slot.release == expected
    other = begin(tmp_path, msgspec.structs.replace(slots, deployment="e"))
    assert other.active is not None
    assert other.active.slot == NEW


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"active":', b"[]"])
def test_a_torn_slots_file_is_no_crash(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SLOTS_FILE).write_bytes(content)
    assert read_slots(tmp_path) == Slots()
    assert read_slots(tmp_path / "none") == Slots()
