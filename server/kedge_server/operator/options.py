"""What every operator's command takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kedge_shared.errors import InputError

if TYPE_CHECKING:
    from kedge_shared.operator_client import OperatorClient


@contextmanager
def connected(server: str, token_file: Path | None) -> Iterator[OperatorClient]:
    """Opens a client by option, environment and configuration."""
    from kedge_shared.operator_client import OperatorClient

    with OperatorClient.open(server, token_file) as client:
        yield client


def finite(option: str, value: float) -> float:
    """Returns a span of time.

    Raises:
        InputError: It is none.
    """
    if not math.isfinite(value):
        raise InputError(f"{option} {value} is no span of time")
    return value


def read_tags(tags: list[str]) -> dict[str, str]:
    """Reads ``["site:north"]``.

    Raises:
        InputError: A tag has no colon.
    """
    pairs = [each.partition(":") for each in tags]
    for key, colon, value in pairs:
        if not (key and colon and value):
            raise InputError(f"tag {key!r} has no value", "write KEY:VALUE")
    return {key: value for key, _, value in pairs}
