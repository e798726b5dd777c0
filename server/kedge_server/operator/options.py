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

DEFAULT_SERVER = "http://127.0.0.1:8470"


@contextmanager
def connected(server: str, token_file: Path | None) -> Iterator[OperatorClient]:
    """Opens a client."""
    from kedge_shared.client import read_token
    from kedge_shared.operator_client import OperatorClient

    with OperatorClient(server, read_token(token_file)) as client:
        yield client


def finite(option: str, value: float) -> float:
    """Returns a span of time.

    Raises:
        InputError: It is none.
    """
    if not math.isfinite(value):
        raise InputError(f"{option} {value} is no span of time")
    return value
