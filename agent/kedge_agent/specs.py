"""What sources, sinks and the runner are told; light, so that the updater can import it."""

from __future__ import annotations

import importlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from kedge_agent.admission import Isolation
from kedge_shared.errors import InputError
from kedge_shared.ids import Name

SourceKind = Literal["camera", "rtsp", "video", "folder", "python"]
SinkKind = Literal["jsonl", "http", "mqtt", "snapshot", "python", "null"]
_URLS = frozenset({"rtsp", "rtsps"})


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """Where frames come from.

    Attributes:
        kind: ``camera`` of this board, ``rtsp`` stream, ``video`` file, ``folder`` of images,
            ``python`` iterable.
        name: Of the source; several need different ones.
        path: File or folder.
        camera: Number of the camera.
        url: Of the stream.
        call: ``module:function`` that returns an iterable of (h, w, 3) BGR uint8.
        fps: Frames a second; of live sources the most that are wanted. Without it a video has its
            own rate, a folder 12, and the others come as they come.
        loop: Begin again at the end.
        timeout_seconds: Opening or a frame takes no longer, or it is opened anew.
    """

    kind: SourceKind
    name: Name = "main"
    path: Path | None = None
    camera: Annotated[int, Meta(ge=0, le=255)] | None = None
    url: str | None = None
    call: str | None = None
    fps: Annotated[float, Meta(gt=0, le=240)] | None = None
    loop: bool = True
    timeout_seconds: Annotated[float, Meta(ge=0.5, le=600)] = 10.0


@dataclass(frozen=True, kw_only=True)
class BrokerSpec:
    """An MQTT broker and what is published there.

    Attributes:
        host: Its name or address.
        topic: Results go to ``TOPIC/detections/SOURCE``, the board's state to ``TOPIC/status``.
        port: It listens at; without it 8883 with TLS, 1883 without.
        qos: 0 sends each result once at the most, 1 at least once.
        every_seconds: Least time between two results of a source; 0 sends each.
        tls: The connection is encrypted and the broker's certificate checked.
        unencrypted_beyond_this_machine: Has to be said where ``tls`` is off and the broker is
            elsewhere: whoever is on the way reads and writes along.
        ca_file: Authorities to trust instead of the system's, PEM.
        certificate_file: Of this board, where the broker asks for one, PEM.
        key_file: Its key, PEM.
        credentials_file: User and password, a line each; they stand nowhere else.
        client_id: Of this board, one in the broker; empty lets the broker choose.
        keep_alive_seconds: A board that is silent for one and a half times as long is offline.
    """

    host: Annotated[str, Meta(min_length=1, max_length=255)]
    topic: Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[^#+\x00]*[^#+/\x00]$")]
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    qos: Literal[0, 1] = 0
    every_seconds: Annotated[float, Meta(ge=0, le=86400)] = 0.0
    tls: bool = True
    unencrypted_beyond_this_machine: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    credentials_file: Path | None = None
    client_id: Annotated[str, Meta(max_length=128)] = ""
    keep_alive_seconds: Annotated[int, Meta(ge=5, le=3600)] = 30

    @property
    def on_port(self) -> int:
        """The port, said or not."""
        return self.port or (8883 if self.tls else 1883)


@dataclass(frozen=True, kw_only=True)
class SinkSpec:
    """Where detections go.

    Attributes:
        kind: ``jsonl`` writes a line a frame, ``http`` answers on a port, ``mqtt`` publishes at a
            broker, ``snapshot`` replaces an annotated picture, ``python`` calls, ``null`` does
            nothing.
        path: File, for ``jsonl`` and ``snapshot``.
        max_mb: Size at which the lines become ``PATH.1``, MiB; two of them are kept.
        address: To listen at.
        port: To listen at.
        beyond_this_machine: Has to be said for any address but loopback: whoever reaches it sees
            what the camera sees.
        every_seconds: Least time between two snapshots.
        call: ``module:function`` that is called with each result.
        broker: For ``mqtt``.
    """

    kind: SinkKind = "null"
    path: Path | None = None
    max_mb: Annotated[float, Meta(gt=0, le=10_000)] = 64.0
    address: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8480
    beyond_this_machine: bool = False
    every_seconds: Annotated[float, Meta(ge=0, le=86400)] = 1.0
    call: str | None = None
    broker: BrokerSpec | None = None


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """What the runner is told at its start; no address, no token.

    Attributes:
        state_dir: Where ``slots.json`` lies.
        blobs: Blob store.
        socket: Path of its socket.
        sources: Where frames come from.
        sinks: Where detections go.
        threads: Threads an engine may use.
        isolation: Where engines live; ``None`` is where their runtime wants them.
        sealer: This board's public key, which seals what was built here.
    """

    state_dir: Path
    blobs: Path
    socket: Path
    sources: tuple[SourceSpec, ...]
    sinks: tuple[SinkSpec, ...] = ()
    threads: int = 1
    isolation: Isolation | None = None
    sealer: dict[str, Any] | None = None


_SOURCE_NEEDS: dict[SourceKind, str] = {
    "camera": "camera", "rtsp": "url", "video": "path", "folder": "path", "python": "call",
}  # fmt: skip
_SINK_NEEDS: dict[SinkKind, str] = {
    "jsonl": "path", "snapshot": "path", "python": "call", "mqtt": "broker",
}  # fmt: skip
_BROKER_FILES = ("ca_file", "certificate_file", "key_file", "credentials_file")


def sources_of(given: SourceSpec | tuple[SourceSpec, ...], base: Path) -> tuple[SourceSpec, ...]:
    """Returns the sources of a configuration: checked, paths relative to ``base``.

    Raises:
        InputError: None at all, two of a name, or one that lacks what its kind needs.
    """
    specs = given if isinstance(given, tuple) else (given,)
    if not specs:
        raise InputError("there is no source", "name one or several under source")
    names = [each.name for each in specs]
    if twice := sorted({each for each in names if names.count(each) > 1}):
        raise InputError(f"two sources are called {twice[0]!r}", "give each a name of its own")
    for each in specs:
        check_source(each)
    return tuple(replace(each, path=base / each.path) if each.path else each for each in specs)


def sinks_of(given: SinkSpec | tuple[SinkSpec, ...], base: Path) -> tuple[SinkSpec, ...]:
    """Returns the sinks of a configuration: checked, paths relative to ``base``.

    Raises:
        InputError: One lacks what its kind needs, or would be open to other machines unasked.
    """
    specs = given if isinstance(given, tuple) else (given,)
    for each in specs:
        _check_sink(each)
    return tuple(_sink_from(each, base) for each in specs)


def _sink_from(spec: SinkSpec, base: Path) -> SinkSpec:
    if spec.broker is not None:
        found = {name: getattr(spec.broker, name) for name in _BROKER_FILES}
        files = {name: base / path for name, path in found.items() if path is not None}
        spec = replace(spec, broker=replace(spec.broker, **files))
    return replace(spec, path=base / spec.path) if spec.path else spec


def check_source(spec: SourceSpec) -> None:
    """Checks that a source has what its kind needs.

    Raises:
        InputError: It has not, or its URL is none of a stream.
    """
    needed = _SOURCE_NEEDS[spec.kind]
    if getattr(spec, needed) is None:
        raise InputError(f"source {spec.kind!r} has no {needed}", f"set source.{needed}")
    if spec.url is not None and urlsplit(spec.url).scheme not in _URLS:
        # The URL itself is not told: it may hold a password.
        raise InputError(f"url of source {spec.name!r} is no rtsp:// or rtsps:// address")


def _check_sink(spec: SinkSpec) -> None:
    needed = _SINK_NEEDS.get(spec.kind)
    if needed and getattr(spec, needed) is None:
        raise InputError(f"sink {spec.kind!r} has no {needed}", f"set sink.{needed}")
    if spec.kind == "http" and not (spec.beyond_this_machine or is_loopback(spec.address)):
        raise InputError(
            f"sink.address {spec.address} is not this machine's alone",
            "take 127.0.0.1, or say sink.beyond_this_machine: true",
        )
    if spec.broker is not None:
        _check_broker(spec.broker)


def _check_broker(broker: BrokerSpec) -> None:
    local = broker.host == "localhost" or is_loopback(broker.host)
    if not (broker.tls or local or broker.unencrypted_beyond_this_machine):
        raise InputError(
            f"sink.broker {broker.host} is another machine and tls is off",
            "say tls: true, or sink.broker.unencrypted_beyond_this_machine: true",
        )
    if (broker.certificate_file is None) != (broker.key_file is None):
        raise InputError(
            "sink.broker has a certificate without its key, or a key without its certificate",
            "set both certificate_file and key_file",
        )


def is_loopback(address: str) -> bool:
    """Says whether an address reaches nobody but this machine."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def called(name: str) -> Callable[..., Any]:
    """Returns what ``module:function`` names.

    Raises:
        InputError: There is no such thing.
    """
    module, _, function = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{name!r} cannot be called: {error}", "write module:function") from None
    return found
