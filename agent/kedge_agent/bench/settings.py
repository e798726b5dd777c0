"""The bench worker's configuration file: typed, bounded, units in the names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from securesystemslib.signer import Key

from kedge_agent.settings import read_config
from kedge_shared import signing, wire
from kedge_shared.ids import Name

_KEY_LIMIT_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """One board that measures.

    Attributes:
        server: Address; plain HTTP only to this machine.
        state_dir: Everything the worker keeps; an agent's own, where the board is enrolled.
        device: Name of the board in the fleet.
        device_class: The one class it measures for.
        trusted_keys: Public parts of the bench keys whose jobs it runs (``kedge keys bench``).
        enrolment_token_file: File with the one-time token; or KEDGE_ENROL_TOKEN.
        tags: For people.
        poll_seconds: Between two questions for work when the server cannot be asked.
        job_seconds: After them a child that measures is killed.
        job_mb: Files of one job at the most, MiB.
        memory_mb: Address space of the child, MiB; 0 is no limit.
    """

    server: str
    state_dir: Path
    device: Name
    device_class: Name
    trusted_keys: Annotated[tuple[Path, ...], Meta(min_length=1, max_length=16)]
    enrolment_token_file: Path | None = None
    tags: dict[str, str] = field(default_factory=dict)
    poll_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    job_seconds: Annotated[float, Meta(ge=1, le=3600)] = 300.0
    job_mb: Annotated[float, Meta(gt=0, le=16384)] = 1024.0
    memory_mb: Annotated[float, Meta(ge=0, le=1048576)] = 0.0

    @property
    def home(self) -> Path:
        """Folder of what only the worker needs."""
        return self.state_dir / "bench"

    @property
    def serves(self) -> bool:
        """A board that enrols as a worker is in no rollout."""
        return False


def read_bench_settings(path: Path) -> BenchSettings:
    """Reads a configuration file; relative paths in it are relative to the file.

    Raises:
        InputError: Unreadable, an unknown or wrong setting, or plain HTTP beyond this machine.
    """
    settings = read_config(path, BenchSettings)
    base, token = path.resolve().parent, settings.enrolment_token_file
    return replace(
        settings,
        state_dir=base / settings.state_dir,
        trusted_keys=tuple(base / each for each in settings.trusted_keys),
        enrolment_token_file=base / token if token else None,
    )


def read_keys(paths: tuple[Path, ...]) -> dict[str, Key]:
    """Returns key id → key.

    Raises:
        InputError: A file is missing or no JSON.
        TrustError: A file holds no Ed25519 public key.
    """
    keys = [
        signing.key_from_dict(
            wire.decode(
                wire.read_limited(path, "bench key", _KEY_LIMIT_BYTES), dict, f"bench key {path}"
            )
        )
        for path in paths
    ]
    return {each.keyid: each for each in keys}
