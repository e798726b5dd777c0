"""The agent's configuration file: typed, bounded, units in the names.

Settings are read with msgspec instead of pydantic-settings, which alone takes 19 MB resident.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar, get_type_hints

import msgspec
from msgspec import Meta

from kedge_agent.patience import ProbationSettings, Seconds, ShadowSettings
from kedge_agent.specs import SinkSpec, SourceSpec, sinks_of, sources_of
from kedge_shared import wire
from kedge_shared.client import check_url
from kedge_shared.errors import InputError
from kedge_shared.ids import Name

_CONFIG_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """One board.

    Attributes:
        server: Address; plain HTTP only to this machine.
        root: The pinned ``1.root.json``.
        state_dir: Everything the agent keeps.
        device: Name of the board in the fleet.
        device_class: The one class it takes.
        source: Where frames come from, one or several in turn.
        models: Models it takes; empty takes any.
        workload: Place of the model.
        sink: Where detections go, one or several.
        enrolment_token_file: File with the one-time token; or KEDGE_ENROL_TOKEN.
        tags: For selectors.
        threads: Threads an engine may use.
        poll_seconds: Between polls until the server says otherwise.
        telemetry_seconds: Between windows of telemetry.
        preflight_seconds: After them a candidate hangs.
        preflight_rounds: Timing rounds of the preflight.
        shadow: Before the swap.
        probation: After the swap.
    """

    server: str
    root: Path
    state_dir: Path
    device: Name
    device_class: Name
    source: SourceSpec | tuple[SourceSpec, ...]
    models: tuple[str, ...] = ()
    workload: Name = "main"
    sink: SinkSpec | tuple[SinkSpec, ...] = ()
    enrolment_token_file: Path | None = None
    tags: dict[str, str] = field(default_factory=dict)
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    poll_seconds: Annotated[float, Meta(ge=0.2, le=86400)] = 60.0
    telemetry_seconds: Annotated[float, Meta(ge=1, le=86400)] = 300.0
    preflight_seconds: Seconds = 120.0
    preflight_rounds: Annotated[int, Meta(ge=4, le=10_000)] = 40
    shadow: ShadowSettings = field(default_factory=ShadowSettings)
    probation: ProbationSettings = field(default_factory=ProbationSettings)

    @property
    def serves(self) -> bool:
        """A board with an agent is in rollouts."""
        return True

    @property
    def blobs(self) -> Path:
        """The blob store's folder."""
        return self.state_dir / "blobs"

    @property
    def socket(self) -> Path:
        """The runner's socket."""
        return self.state_dir / "runner.sock"


def read_settings(path: Path) -> AgentSettings:
    """Reads a configuration file; relative paths in it are relative to the file.

    Raises:
        InputError: Unreadable, an unknown or wrong setting, or plain HTTP beyond this machine.
    """
    return _absolute(read_config(path, AgentSettings), path.resolve().parent)


class _Connects(Protocol):
    @property
    def server(self) -> str: ...


S = TypeVar("S", bound=_Connects)


def read_config(path: Path, kind: type[S]) -> S:
    """Reads a configuration file as a dataclass; paths in it stay as they are written.

    Raises:
        InputError: Unreadable, an unknown or wrong setting, or plain HTTP beyond this machine.
    """
    data = wire.read_limited(path, "configuration", _CONFIG_LIMIT_BYTES)
    try:
        raw: Any = msgspec.yaml.decode(data)
    except msgspec.MsgspecError as error:
        raise InputError(f"configuration {path} is no YAML: {error}") from None
    known = set(get_type_hints(kind))
    unknown = sorted(set(raw) - known) if isinstance(raw, dict) else []
    if unknown:
        raise InputError(f"configuration {path} has unknown settings: {', '.join(unknown)}")
    settings = wire.decode_yaml(data, kind, f"configuration {path}")
    check_url(settings.server)
    return settings


def _absolute(settings: AgentSettings, base: Path) -> AgentSettings:
    from dataclasses import replace

    token = settings.enrolment_token_file
    return replace(
        settings,
        root=base / settings.root,
        state_dir=base / settings.state_dir,
        source=sources_of(settings.source, base),
        sink=sinks_of(settings.sink, base),
        enrolment_token_file=base / token if token else None,
    )
