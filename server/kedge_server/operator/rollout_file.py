"""Rollouts as YAML: every field is checked, and what no field is called is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

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
    unknown = list(_unknown(yaml.safe_load(data), json.loads(wire.encode(spec)), ""))
    if unknown:
        raise InputError(f"{path}: there is no field {unknown[0]}", "see docs/rollouts.md")
    wrong = faults(spec)
    if wrong:
        raise InputError(f"{path}: {wrong[0]}", "see docs/rollouts.md")
    return spec


def _unknown(given: Any, read: Any, path: str) -> Iterator[str]:
    """Yields what was written and not read: a decoder that skips it would hide a slip."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            where = f"{path}.{key}" if path else str(key)
            if str(key) not in read:
                yield where
            else:
                yield from _unknown(value, read[str(key)], where)
    elif isinstance(given, list) and isinstance(read, list):
        for index, (left, right) in enumerate(zip(given, read, strict=False)):
            yield from _unknown(left, right, f"{path}[{index}]")
