"""``kedge agent status``: from the journal and, if it answers, the runner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from kedge_agent.errors import RunnerGone
from kedge_agent.journal import open_read_only
from kedge_agent.local_client import RunnerLink
from kedge_agent.local_protocol import RunnerState
from kedge_agent.settings import AgentSettings
from kedge_agent.state import State


@dataclass(frozen=True)
class AgentStatus:
    """Where a board stands.

    Attributes:
        device: Its name.
        running: The runner answers.
        release: Release that serves, or empty.
        engine: Hash of the engine, or empty.
        phase: Of the last deployment, or empty.
        reason: Why it stands there.
        bytes_downloaded: Bodies of artifacts, ever.
        runner: The runner's own account.
        state: The journal's.
    """

    device: str
    running: bool
    release: str
    engine: str
    phase: str
    reason: str
    bytes_downloaded: int
    runner: RunnerState | None
    state: State

    def line(self) -> str:
        """Returns one line for people."""
        frames = f", {self.runner.frames} frames" if self.runner else ""
        serving = f"serves {self.release}" if self.release else "has no engine yet"
        health = "running" if self.running else "not running"
        last = f"; last update {self.phase}: {self.reason}" if self.phase else ""
        return f"{self.device}: {health}, {serving}{frames}{last}"


def gather(settings: AgentSettings) -> AgentStatus:
    """Returns the status.

    Raises:
        StorageError: The journal cannot be read.
    """
    state = open_read_only(settings.state_dir) or State()
    try:
        runner: RunnerState | None = asyncio.run(RunnerLink(settings.socket).state(2))
    except RunnerGone:
        runner = None
    serving = runner.active if runner else state.active
    deployment: Any = state.deployment
    return AgentStatus(
        device=settings.device,
        running=runner is not None,
        release=serving.release if serving else "",
        engine=serving.engine if serving else "",
        phase=deployment.phase.value if deployment else "",
        reason=deployment.verdict.reason if deployment else "",
        bytes_downloaded=state.bytes_downloaded,
        runner=runner,
        state=state,
    )
