"""Python environments of their own, for tools whose pins fit nobody else's.

One is made once and kept by the content of its pins. It appears whole by one rename: what was cut
short is a folder that nobody looks at, and is swept away a day later by who makes the next one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kedge_builder.cache import default_folder
from kedge_builder.progress import Progress
from kedge_shared.errors import InputError, ServiceError, StorageError

#: pip says so where no index answers.
_OFFLINE = ("Failed to establish a new connection", "Temporary failure in name resolution",
            "No matching distribution found", "Connection refused", "timed out",
            "Network is unreachable")  # fmt: skip
_FULL = ("No space left on device", "Disk quota exceeded")
_MAKING, _FORGOTTEN_SECONDS = ".making-", 86400.0
_LINES = ("Collecting ", "Downloading ", "Installing ")

Run = Callable[[Sequence[str], Callable[[str], None]], int]


@dataclass(frozen=True)
class Pins:
    """What an environment holds.

    Attributes:
        tool: What it is for, as sentences name it.
        first: Requirements that are installed with what they need.
        alone: Requirements that are installed without: theirs contradict ``first``.
        pythons: Versions of Python that the tool has wheels for.
        size: What it takes on disk, for people.
        variable: Environment variable that names a ready Python instead.
    """

    tool: str
    first: tuple[str, ...]
    alone: tuple[str, ...]
    pythons: tuple[tuple[int, int], ...]
    size: str
    variable: str

    @property
    def name(self) -> str:
        """Of its folder: the tool and a digest over the pins and the Python."""
        told = "\n".join((*self.first, "--no-deps", *self.alone, sys.version, sys.base_prefix))
        return f"{self.tool}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def python_of(
    pins: Pins, progress: Progress, folder: Path | None = None, run: Run | None = None
) -> Path:
    """Returns the Python of an environment, made when it is not there.

    Args:
        pins: What it holds.
        progress: Told of what pip does.
        folder: Where environments are kept; by default beside the steps of builds.
        run: Runs a command, giving each line that it prints to a function.

    Raises:
        InputError: This Python is none that the tool has wheels for, or the one that was named
            instead is not there.
        ServiceError: The package index does not answer, or lacks something.
        StorageError: The disk is full or cannot be written.
    """
    named = os.environ.get(pins.variable)
    if named:
        if not Path(named).is_file():
            raise InputError(f"{pins.variable} names {named}, which is no file")
        return Path(named)
    folder = folder or default_folder().parent / "environments"
    place = folder / pins.name
    if not place.is_dir():
        _check_python(pins)
        try:
            _make(pins, place, progress, run or _run)
        except OSError as error:
            raise StorageError(
                f"the environment of {pins.tool} cannot be written to {folder}: {error.strerror}",
                "free the disk, or name another folder with XDG_CACHE_HOME",
            ) from None
    return place / "bin" / "python"


def _check_python(pins: Pins) -> None:
    if sys.version_info[:2] not in pins.pythons:
        listed = ", ".join(f"{major}.{minor}" for major, minor in pins.pythons)
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise InputError(
            f"{pins.tool} has no wheel for Python {here}",
            f"run kedge under Python {listed}, or set {pins.variable}",
        )


def _make(pins: Pins, place: Path, progress: Progress, run: Run) -> None:
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for each in place.parent.glob(f"{_MAKING}*"):
        # A younger one may be another process's.
        if time.time() - each.stat().st_mtime > _FORGOTTEN_SECONDS:
            shutil.rmtree(each, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{_MAKING}{pins.tool}-", dir=place.parent))
    try:
        stage = f"making the environment of {pins.tool} (once, {pins.size})"
        with progress.stage(stage) as tick:
            _install(pins, scratch, tick, run)
        try:
            scratch.rename(place)
        except OSError:
            if not place.is_dir():  # else another process made the same one meanwhile
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _install(pins: Pins, scratch: Path, tick: Callable[[], None], run: Run) -> None:
    python = str(scratch / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        if line.strip().startswith(_LINES):
            tick()

    for command in (
        [sys.executable, "-m", "venv", str(scratch)],
        [*pip, *pins.first],
        [*pip, "--no-deps", *pins.alone],
    ):
        if run(command, hear):
            raise _failure(pins, said)


def _failure(pins: Pins, said: Sequence[str]) -> ServiceError | StorageError:
    text = "\n".join(said)
    if any(each in text for each in _FULL):
        return StorageError(
            f"the environment of {pins.tool} does not fit on the disk: it takes {pins.size}",
            "free the disk, or name another folder with XDG_CACHE_HOME",
        )
    if any(each in text for each in _OFFLINE):
        return ServiceError(
            f"the environment of {pins.tool} cannot be made: no package index has its parts",
            f"build once where one answers, or set {pins.variable} to a Python that has them",
        )
    errors = [each for each in said if "error" in each.lower()] or ["pip failed"]
    return ServiceError(
        f"the environment of {pins.tool} cannot be made: {errors[-1].strip()[:200]}"
    )


def _run(command: Sequence[str], hear: Callable[[str], None]) -> int:
    # Paths that this process was given would let its packages into the other environment.
    clean = {key: each for key, each in os.environ.items()
             if key not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean
    ) as process:
        for line in process.stdout or ():
            hear(line.rstrip())
    return process.returncode
