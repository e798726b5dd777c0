"""Rollouts as YAML: every field is checked, and what no field is called is told."""

from __future__ import annotations

from pathlib import Path

from kedge_server.rollouts.faults import faults
from kedge_shared import wire
from kedge_shared.errors import InputError
from kedge_shared.rollouts import RolloutSpec

_LIMIT_BYTES = 64 * 1024


def read_rollout(path: Path) -> RolloutSpec:
    """Reads a rollout's file.

    Raises:
        InputError: It cannot be read, or a field is missing, unknown, of another type or out of
            bounds; the message names the field.
    """
    data = wire.read_limited(path, "rollout", _LIMIT_BYTES)
    spec = wire.decode_yaml(data, RolloutSpec, str(path))
    require_sound(spec, str(path))
    return spec


def require_sound(spec: RolloutSpec, where: str) -> None:
    """Checks what the server would refuse anyway.

    Raises:
        InputError: It would; the message names the field.
    """
    wrong = faults(spec)
    if wrong:
        raise InputError(f"{where}: {wrong[0]}", "see docs/rollouts.md")
