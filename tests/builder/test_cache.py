"""The build cache: whole entries or none, whatever dies, and keys that tell builds apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kedge_builder import cache as module
from kedge_builder.cache import Cache
from kedge_shared.errors import StorageError


@dataclass(frozen=True)
class Found:
    share: float
    names: tuple[str, ...]


class Maker:
    """Writes two files and counts how often it was asked to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, out: Path) -> None:
        self.calls += 1
        (out / "model.bin").write_bytes(b"weights")
        (out / "deep").mkdir()
        (out / "deep" / "more.bin").write_bytes(b"more")


def entries(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_whole_entry_is_not_made_again(tmp_path: Path) -> None:
    make = Maker()
    first, there = Cache(tmp_path / "cache").files("step", {"a": 1}, make)
    again, still = Cache(tmp_path / "cache").files("step", {"a": 1}, make)
    assert (there, still, make.calls) == (False, True, 1)
    assert again == first
    assert (again / "deep" / "more.bin").read_bytes() == b"more"
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_files_appear_only_when_all_are_made(tmp_path: Path) -> None:
    def make(out: Path) -> None:
        (out / "half").write_bytes(b"half")
        assert not [each for each in entries(tmp_path) if not each.startswith(".making-")]

    Cache(tmp_path).files("step", {}, make)
    assert len(entries(tmp_path)) == 1


def altered(place: Path) -> None:
    (place / "deep" / "more.bin").write_bytes(b"mOre")


def shortened(place: Path) -> None:
    (place / "model.bin").write_bytes(b"")


def lost(place: Path) -> None:
    (place / "model.bin").unlink()


def no_index(place: Path) -> None:
    (place / "entry.json").write_bytes(b"{")


@pytest.mark.parametrize("harm", [altered, shortened, lost, no_index])
def test_a_torn_or_altered_entry_is_made_anew(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    make = Maker()
    cache = Cache(tmp_path)
    place, _ = cache.files("step", {}, make)
    harm(place)
    again, there = cache.files("step", {}, make)
    assert (again, there, make.calls) == (place, False, 2)
    assert (place / "model.bin").read_bytes() == b"weights"
    assert (place / "deep" / "more.bin").read_bytes() == b"more"
    assert cache.files("step", {}, make)[1]


KILLED = """
import os, signal, sys
from pathlib import Path
from kedge_builder.cache import Cache

def make(out):
    (out / "model.bin").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

Cache(Path(sys.argv[1])).files("step", {}, make)
"""


def test_a_killed_process_leaves_no_half_entry(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert all(each.startswith(".making-") for each in entries(tmp_path))
    make = Maker()
    place, there = Cache(tmp_path).files("step", {}, make)
    assert (there, make.calls) == (False, 1)
    assert (place / "model.bin").read_bytes() == b"weights"


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    def make(out: Path) -> None:
        (out / "begun").write_bytes(b"begun")
        (out / "big").symlink_to("/dev/full")
        (out / "big").write_bytes(b"too much")

    with pytest.raises(StorageError, match="No space left on device") as caught:
        Cache(tmp_path).files("step", {}, make)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert entries(tmp_path) == []


def test_what_the_step_lacks_is_not_blamed_on_the_cache(tmp_path: Path) -> None:
    def make(out: Path) -> None:
        (tmp_path / "no image.png").read_bytes()

    with pytest.raises(FileNotFoundError, match="no image"):
        Cache(tmp_path).files("step", {}, make)
    assert entries(tmp_path) == []


def test_a_step_that_fails_is_made_the_next_time(tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        (out / "begun").write_bytes(b"begun")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Cache(tmp_path).files("step", {}, fail)
    assert entries(tmp_path) == []
    assert Cache(tmp_path).files("step", {}, Maker())[1] is False


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="file/cache cannot be written: Not a directory"):
        Cache(tmp_path / "file" / "cache").files("step", {}, Maker())


def test_another_input_step_or_tool_is_another_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    places = {
        cache.files(step, inputs, Maker())[0]
        for step, inputs in (
            ("step", {"a": 1, "b": 2}),
            ("step", {"a": 1, "b": 3}),
            ("step", {"a": 1}),
            ("step", {"a": 1, "c": 2}),
            ("other", {"a": 1, "b": 2}),
        )
    }
    assert len(places) == 5
    place, there = cache.files("step", {"b": 2, "a": 1}, Maker())
    assert there
    newer = {name: f"{version}.1" for name, version in module.tools().items()}
    monkeypatch.setattr(module, "tools", lambda: newer)
    other, there = Cache(tmp_path).files("step", {"a": 1, "b": 2}, Maker())
    assert (other != place, there) == (True, False)


def test_a_value_comes_back_as_it_was(tmp_path: Path) -> None:
    made = []

    def make() -> Found:
        made.append(None)
        return Found(0.1 + 0.2, ("a", "ß"))

    values = [Cache(tmp_path).value("step", {"a": 1}, Found, make) for _ in range(2)]
    assert values == [Found(0.1 + 0.2, ("a", "ß"))] * 2
    assert len(made) == 1


def aged(cache: Cache, name: str, seconds: float) -> Path:
    place, _ = cache.files(name, {}, Maker())
    os.utime(place, (seconds, seconds))
    return place


def test_the_longest_unused_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first, second, third = (aged(cache, name, at) for at, name in enumerate("abc"))
    size = sum(each.stat().st_size for each in first.rglob("*") if each.is_file())
    cache.files("a", {}, Maker())  # used again: now the youngest
    cache.trim(2 * size)
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)
    cache.trim(2 * size)
    assert third.exists()
    cache.trim(0)
    assert entries(tmp_path) == []


def test_nothing_to_trim(tmp_path: Path) -> None:
    Cache(tmp_path / "none").trim()
    assert entries(tmp_path) == []


def test_two_builds_may_make_the_same_entry_at_once(tmp_path: Path) -> None:
    """The other one is done first, between our look and our rename, and works with its files."""
    folder = tmp_path / "cache"
    theirs: list[int] = []

    def slow(out: Path) -> None:
        found, _ = Cache(folder).files("step", {}, Maker())
        theirs.append((found / "model.bin").stat().st_ino)
        Maker()(out)

    place, _ = Cache(folder).files("step", {}, slow)
    assert (place / "model.bin").read_bytes() == b"weights"
    assert [(place / "model.bin").stat().st_ino] == theirs, "not taken from under it"
    assert len(entries(folder)) == 1


def test_an_entry_that_comes_between_two_of_our_steps_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes as late as can be: after we have looked a last time, or just before our rename."""
    folder, asked, theirs = tmp_path / "cache", [0], list[int]()
    whole, rename = Cache._whole, Path.rename

    def comes() -> None:
        if not theirs and asked[0]:
            theirs.append(0)
            found, _ = Cache(folder).files("step", {}, Maker())
            theirs[0] = (found / "model.bin").stat().st_ino

    def look(self: Cache, place: Path) -> bool:
        found = whole(self, place)
        if asked[0]:
            comes()
        asked[0] += 1
        return found

    def late(self: Path, target: Path) -> Path:
        comes()
        return rename(self, target)

    monkeypatch.setattr(Cache, "_whole", look)
    monkeypatch.setattr(Path, "rename", late)
    place, _ = Cache(folder).files("step", {}, Maker())
    assert [(place / "model.bin").stat().st_ino] == theirs, "not taken from under it"
    assert len(entries(folder)) == 1
