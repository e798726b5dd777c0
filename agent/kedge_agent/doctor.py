"""``kedge agent doctor``: what would keep this board from updating, and how to mend it."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal

import httpx

from kedge_agent import facts, identity
from kedge_agent.children import run_module
from kedge_agent.clock import is_behind
from kedge_agent.commands.protocol import SOCKET
from kedge_agent.disk import free_bytes
from kedge_agent.errors import RunnerGone
from kedge_agent.gpu import board_python
from kedge_agent.journal import open_read_only
from kedge_agent.local_client import RunnerLink
from kedge_agent.network.window import window_open, zone_of
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_agent.sandbox import WALLS
from kedge_agent.sensors import thermal, throttling
from kedge_agent.settings import AgentSettings
from kedge_agent.state import State
from kedge_shared.device_classes import find_class
from kedge_shared.errors import InputError, KedgeError

_ROOT = Path("/")
_SERVER_SECONDS = 10.0
#: Signatures hold to the second; certificates and people bear some minutes.
_SKEW_SECONDS = 300.0
_HOT_CELSIUS = 85.0
#: A release with its golden frames rarely takes more, MiB.
_ROOM_MB = 256.0


#: Who runs as a user of its own has no other to become, and that user's rights are few anyway.
_WEAK = {"network", "files", "calls"}
_WALL_MENDS = {
    "limits": "want Linux",
    "network": "wants user namespaces (sysctl user.max_user_namespaces, or AppArmor's leave)",
    "privileges": "want Linux",
    "user": "wants root and a Python that user nobody can read",
    "files": "want a kernel with Landlock (5.13, CONFIG_SECURITY_LANDLOCK)",
    "calls": "want a kernel with seccomp filters (CONFIG_SECCOMP_FILTER) on x86-64 or ARM64",
}


_RUNTIME_MENDS = {
    "tensorrt": "it comes with JetPack (apt install python3-libnvinfer), or from NVIDIA; "
    f"{board_python.PYTHON_ENV} names the Python that it is for",
}


@dataclass(frozen=True)
class Finding:
    """One look at one thing.

    Attributes:
        what: It.
        state: ``good``; ``odd`` keeps nothing from working; ``bad`` does.
        said: What was found.
        mend: What to do about it; empty where nothing is to be done.
    """

    what: str
    state: Literal["good", "odd", "bad"]
    said: str
    mend: str = ""

    def line(self) -> str:
        """Returns one line for people."""
        mend = f"; {self.mend}" if self.mend else ""
        return f"{self.state:5}{self.what}: {self.said}{mend}"


def examine(settings: AgentSettings, root: Path = _ROOT) -> list[Finding]:
    """Looks at everything.

    Args:
        settings: Configuration; that it could be read is the first finding.
        root: Of the file system, for sensors.
    """
    return [
        Finding("configuration", "good", f"{settings.device}, {settings.device_class}"),
        *_told("pinned root", lambda: _root(settings)),
        *_told("state", lambda: _state(settings)),
        *_told("key", lambda: _key(settings)),
        *_told("disk", lambda: _disk(settings)),
        *_told("clock", lambda: _clock(settings)),
        *_told("server", lambda: _server(settings)),
        *_told("runtime", lambda: _runtime(settings)),
        *_told("sandbox", _sandbox),
        *_told("loop", lambda: _loop(settings)),
        *_told("heat", lambda: _heat(root)),
    ]


def _told(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yields what a look finds; what it could not read is a finding too."""
    try:
        yield from look()
    except KedgeError as error:
        yield Finding(what, "bad", error.what, error.mend)
    except OSError as error:
        yield Finding(what, "bad", f"{error.filename} cannot be read: {error.strerror}")


def _root(settings: AgentSettings) -> Iterator[Finding]:
    if not settings.root.is_file():
        mend = "copy 1.root.json from `kedge keys init` to this board"
        yield Finding("pinned root", "bad", f"{settings.root} is not there", mend)
        return
    if settings.root.stat().st_mode & stat.S_IWOTH:
        mend = f"chmod o-w {settings.root}"
        yield Finding("pinned root", "bad", "everybody may write it", mend)
        return
    yield Finding("pinned root", "good", str(settings.root))


def _state(settings: AgentSettings) -> Iterator[Finding]:
    folder = settings.state_dir
    if not folder.is_dir():
        yield Finding("state", "odd", f"{folder} is not there yet", "the agent makes it")
        return
    if not os.access(folder, os.W_OK):
        mend = f"run as the agent's user, or chown {folder} to it"
        yield Finding("state", "bad", f"{folder} cannot be written", mend)
        return
    if folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        said = f"{folder} is open to other users"
        yield Finding("state", "bad", said, f"chmod 700 {folder}")
        return
    state = open_read_only(folder) or State()
    serves = f"serves {state.active.release}" if state.active else "no engine yet"
    yield Finding("state", "good", f"{serves}, {len(state.quarantine)} in quarantine")


def _key(settings: AgentSettings) -> Iterator[Finding]:
    known = identity.load(settings.state_dir) if settings.state_dir.is_dir() else None
    if known is not None:
        yield Finding("key", "good", f"enrolled as {known.device}")
        return
    try:
        token = identity.enrolment_token(settings)
    except KedgeError as error:
        yield Finding("key", "bad", error.what, error.mend)
        return
    if token:
        yield Finding("key", "odd", "not enrolled yet, a token is there")
    else:
        mend = f"make one with `kedge device token` and set {identity.TOKEN_ENV}, or approve it"
        yield Finding("key", "odd", "not enrolled and without a token: it waits for approval", mend)


def _disk(settings: AgentSettings) -> Iterator[Finding]:
    folder = settings.state_dir if settings.state_dir.is_dir() else settings.state_dir.parent
    free = free_bytes(folder) / 2**20 - settings.disk_reserve_mb
    said = f"{max(0.0, free):.0f} MiB free beside the reserve of {settings.disk_reserve_mb:.0f}"
    if free <= 0:
        yield Finding("disk", "bad", said, "free some space, or lower disk_reserve_mb")
    elif free < _ROOM_MB:
        yield Finding("disk", "odd", said, "a large release may not fit")
    else:
        yield Finding("disk", "good", said)


def _clock(settings: AgentSettings) -> Iterator[Finding]:
    now = time.time()
    state = open_read_only(settings.state_dir) or State()
    if is_behind(now, state.newest_time):
        said = f"says {time.strftime('%Y-%m-%d', time.gmtime(now))}, which is past for certain"
        yield Finding("clock", "bad", said, "set it; updates go on, windows do not open")
        return
    yield Finding("clock", "good", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))
    if settings.maintenance is not None:
        opening = window_open(settings.maintenance, now, 0, zone_of(settings.maintenance))
        never = not opening.open and opening.until is None
        yield Finding("window", "bad" if never else "good", opening.reason)


def _server(settings: AgentSettings) -> Iterator[Finding]:
    try:
        answer = httpx.get(f"{settings.server}/healthz", timeout=_SERVER_SECONDS)
    except httpx.HTTPError as error:
        said = f"{settings.server} does not answer ({type(error).__name__})"
        yield Finding("server", "bad", said, "check address, name service, route and certificate")
        return
    if not answer.is_success:
        yield Finding("server", "bad", f"{settings.server} answers {answer.status_code}")
        return
    yield Finding("server", "good", f"{settings.server} answers")
    skew = _skew(answer)
    if skew is not None and abs(skew) > _SKEW_SECONDS:
        said = f"is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the server's"
        yield Finding("clock", "odd", said, "set it, for example with systemd-timesyncd")


def _skew(answer: httpx.Response) -> float | None:
    try:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError):
        return None


def _runtime(settings: AgentSettings) -> Iterator[Finding]:
    installed = facts.runtimes()
    try:
        wanted = find_class(settings.device_class).runtime
    except InputError:
        said = f"class {settings.device_class} is your own; installed: {_named(installed)}"
        yield Finding("runtime", "good" if installed else "bad", said)
        return
    version = installed.get(wanted.name)
    if wanted.name not in RUNTIMES:
        said = f"this agent has no runtime for {wanted.name}, which {settings.device_class} runs"
        yield Finding("runtime", "bad", said, "see docs/hardware.md for the classes it can serve")
        return
    if version is None:
        said = f"{wanted.name} does not import here; installed: {_named(installed)}"
        mend = _RUNTIME_MENDS.get(wanted.name, f"pip install 'kedge[agent,{wanted.name}]'")
        yield Finding("runtime", "bad", said, mend)
        return
    yield Finding("runtime", "good", f"{wanted.name} {version}")


def _sandbox() -> Iterator[Finding]:
    """Has a child put up the walls that a candidate gets; only a try tells which stand."""
    left = asyncio.run(run_module("kedge_agent.sandbox", b"", _SERVER_SECONDS))
    stand = left.output.decode().split()
    said = f"a candidate's walls: {', '.join(stand) or 'none'}"
    missing = [each for each in WALLS if each not in stand]
    if not missing:
        yield Finding("sandbox", "good", said)
        return
    mends = "; ".join(f"{each} {_WALL_MENDS[each]}" for each in missing)
    worse = {"limits", "privileges"} & set(missing)
    yield Finding("sandbox", "bad" if worse else "odd" if _WEAK & set(missing) else "good",
                  f"{said}; not there: {', '.join(missing)}", mends)  # fmt: skip


def _named(installed: dict[str, str]) -> str:
    return ", ".join(sorted(installed)) or "none"


def _loop(settings: AgentSettings) -> Iterator[Finding]:
    try:
        runner = asyncio.run(RunnerLink(settings.socket).state(3))
    except RunnerGone as error:
        yield Finding("loop", "odd", str(error), "is `kedge agent run` up?")
        return
    age = runner.last_frame_age_s
    said = f"{runner.frames} frames, {runner.errors} errors, the last {age:.1f} s ago"
    stands = runner.active is not None and age > 60
    mend = "check the source" if stands else ""
    yield Finding("loop", "bad" if stands else "good", said, mend)
    if not (settings.state_dir / SOCKET).exists():
        yield Finding("updater", "bad", "it has opened no socket", "look at its log")


def _heat(root: Path) -> Iterator[Finding]:
    readings, held = thermal.temperatures(root), throttling.look(root)
    if not readings and not held.measured:
        yield Finding("heat", "good", "not measured on this board")
        return
    hottest = max(readings.items(), key=lambda each: each[1], default=("", 0.0))
    said = f"{hottest[0]} {hottest[1]:.0f} °C" if readings else "no temperatures"
    if held.now:
        yield Finding("heat", "odd", f"{said}; {'; '.join(held.now)}", "cool it, check its power")
    elif hottest[1] >= _HOT_CELSIUS:
        yield Finding("heat", "odd", said, "cool it")
    else:
        yield Finding("heat", "good", said)
