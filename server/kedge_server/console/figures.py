"""The figures that pages keep, of one server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from kedge_server.console.fleet.overview import Overview
from kedge_server.console.kept import Kept


@dataclass(frozen=True)
class Figures:
    """What is kept.

    Attributes:
        fleet: By the scopes of who looks.
    """

    fleet: Kept[Overview] = field(default_factory=Kept)


def figures(request: Request) -> Figures:
    """Returns what the server that is asked keeps."""
    return cast("Figures", request.app.state.console)
