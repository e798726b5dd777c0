"""The figures that pages keep, of one server."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from kedge_server.console.fleet.overview import Overview
from kedge_server.console.kept import Kept
from kedge_server.console.rollouts.listing import Placed
from kedge_server.console.trust.identity import Identities
from kedge_server.repository.publication import Offline
from kedge_shared.api import RolloutInfo
from kedge_shared.audit import Verified


@dataclass(frozen=True)
class Figures:
    """What is kept.

    Attributes:
        fleet: By the scopes of who looks.
        standing: Rollouts in each state, by the scopes of who looks.
        rollouts: By rollout and where it stands.
        placed: Boards of a rollout in a list, by rollout and where it stands, list and page.
        counts: Boards by scopes, selector and state.
        running: Who runs what, by the scopes of who looks.
        offline: Signed metadata, by the version of the timestamp.
        identities: How the boards' keys stand.
        chain: Of the audit log.
    """

    fleet: Kept[Overview] = field(default_factory=Kept)
    standing: Kept[Mapping[str, int]] = field(default_factory=Kept)
    rollouts: Kept[RolloutInfo] = field(default_factory=Kept)
    placed: Kept[tuple[list[Placed], str]] = field(default_factory=Kept)
    counts: Kept[int] = field(default_factory=Kept)
    running: Kept[Mapping[tuple[str, str, str], int]] = field(default_factory=Kept)
    offline: Kept[Offline] = field(default_factory=Kept)
    identities: Kept[Identities] = field(default_factory=Kept)
    # To follow the log takes as long as it is long: never more often than it may cost.
    chain: Kept[Verified] = field(default_factory=lambda: Kept(math.inf))

    def forget(self) -> None:
        """Has all of it worked out anew: a person has just changed something."""
        self.fleet.forget()
        self.standing.forget()
        self.rollouts.forget()
        self.placed.forget()
        self.counts.forget()
        self.running.forget()
        self.identities.forget()


def figures(request: Request) -> Figures:
    """Returns what the server that is asked keeps."""
    return cast("Figures", request.app.state.console)
