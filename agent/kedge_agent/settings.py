"""The agent's configuration file: typed, bounded, units in the names.

Settings are read with msgspec instead of pydantic-settings, which alone takes 19 MB resident.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Meta

from kedge_agent import metrics
from kedge_agent.admission import Isolation
from kedge_agent.metrics import MetricsSettings
from kedge_agent.network.window import WindowSettings, zone_of
from kedge_agent.patience import BuildingSettings, ProbationSettings, Seconds, ShadowSettings
from kedge_agent.specs import SinkSpec, SourceSpec, sinks_of, sources_of
from kedge_shared import wire
from kedge_shared.client import check_url
from kedge_shared.errors import InputError
from kedge_shared.ids import Name

_CONFIG_LIMIT_BYTES = 64 * 1024
#: Of an attribute's line in a docstring of this package.
_ATTRIBUTE_INDENT = 4


@dataclass(frozen=True, kw_only=True)
class BundleSettings:
    """What `kedge agent install` may do.

    Attributes:
        without_assignment: Take what the builders signed for this class without the director's
            word, if it is not older than what serves.
        grace_days: How long after its expiry a bundle's snapshot and timestamp are taken; root and
            targets never are.
    """

    without_assignment: bool = False
    grace_days: Annotated[float, Meta(ge=0, le=90)] = 0.0


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
        isolation: ``own-process`` keeps engines out of the loop's process; without it they live
            where their runtime wants them.
        poll_seconds: Between polls until the server says otherwise.
        telemetry_seconds: Between windows of telemetry.
        metrics: Local Prometheus endpoint; ``None`` is off.
        download_kib_per_second: No more than that on average; ``None`` is no limit.
        disk_budget_mb: MiB that engines and downloads may take; ``None`` is what the disk has.
        disk_reserve_mb: MiB of the disk that the agent leaves to others.
        maintenance: When this board may be worked on; ``None`` is always.
        bundles: What may be installed from a stick.
        building: Of plans, on boards that build their own.
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
    isolation: Isolation | None = None
    poll_seconds: Annotated[float, Meta(ge=0.2, le=86400)] = 60.0
    telemetry_seconds: Annotated[float, Meta(ge=1, le=86400)] = 300.0
    metrics: MetricsSettings | None = None
    download_kib_per_second: Annotated[float, Meta(ge=1, le=10_000_000)] | None = None
    disk_budget_mb: Annotated[float, Meta(ge=1)] | None = None
    disk_reserve_mb: Annotated[float, Meta(ge=0)] = 64.0
    maintenance: WindowSettings | None = None
    bundles: BundleSettings = field(default_factory=BundleSettings)
    building: BuildingSettings = field(default_factory=BuildingSettings)
    preflight_seconds: Seconds = 120.0
    preflight_rounds: Annotated[int, Meta(ge=4, le=10_000)] = 40
    shadow: ShadowSettings = field(default_factory=ShadowSettings)
    probation: ProbationSettings = field(default_factory=ProbationSettings)

    @property
    def serves(self) -> bool:
        """A board with an agent is in rollouts."""
        return True

    @property
    def download_bytes_per_second(self) -> float | None:
        """The limit on bandwidth, or ``None``."""
        limit = self.download_kib_per_second
        return None if limit is None else limit * 1024

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
        InputError: Unreadable, an unknown or wrong setting, a zone that is none, or plain HTTP
            beyond this machine.
    """
    settings = _absolute(read_config(path, AgentSettings), path.resolve().parent)
    if settings.maintenance is not None:
        zone_of(settings.maintenance)
    if settings.metrics is not None:
        metrics.check(settings.metrics)
    return settings


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
    unknown = sorted(_unknown(raw, kind))
    if unknown:
        raise InputError(f"configuration {path} has unknown settings: {', '.join(unknown)}")
    settings = wire.decode_yaml(data, kind, f"configuration {path}")
    check_url(settings.server)
    return settings


def _unknown(raw: Any, kind: Any, prefix: str = "") -> Iterator[str]:
    """Yields the settings that a dataclass does not have, by their dotted names."""
    if not isinstance(raw, dict):
        return
    hints = get_type_hints(kind)
    for name, value in raw.items():
        if name not in hints:
            yield f"{prefix}{name}"
            continue
        below = [each for each in (hints[name], *get_args(hints[name])) if is_dataclass(each)]
        if len(below) == 1:
            for one in value if isinstance(value, list) else [value]:
                yield from _unknown(one, below[0], f"{prefix}{name}.")


def schema() -> dict[str, Any]:
    """Returns the JSON schema of the configuration, for editors and provisioning."""

    def other(kind: type) -> dict[str, Any]:
        if kind is Path:
            return {"type": "string"}
        raise NotImplementedError(kind)

    found = msgspec.json.schema(AgentSettings, schema_hook=other)
    for each in found["$defs"].values():
        each["additionalProperties"] = False
        about = each.get("description", "")
        each["description"] = about.split("\n", 1)[0]
        for name, said in _attributes(about):
            if name in each["properties"]:
                each["properties"][name].setdefault("description", said)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _attributes(docstring: str) -> Iterator[tuple[str, str]]:
    """Yields name and description of a docstring's attributes, continuation lines joined."""
    name, said = "", ""
    # Python 3.13 and some releases of msgspec dedent docstrings, others do not.
    for line in inspect.cleandoc(docstring).partition("Attributes:")[2].splitlines():
        indent = len(line) - len(line.lstrip())
        if indent == _ATTRIBUTE_INDENT and ":" in line:
            if name:
                yield name, said
            name, _, said = (part.strip() for part in line.partition(":"))
        elif name:
            said = f"{said} {line.strip()}".strip()
    if name:
        yield name, said


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
