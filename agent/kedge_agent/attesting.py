"""What this board will say that it runs: made with the report about it, signed when that is sent.

Not before: a board whose key was rotated meanwhile signs with the one that the server knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from kedge_agent.local_protocol import Slot
from kedge_agent.settings import AgentSettings
from kedge_agent.state import State
from kedge_shared.attestation import (
    ATTESTED,
    Judged,
    Running,
    evidence_hash,
    health_of,
    state_running,
)
from kedge_shared.errors import KedgeError
from kedge_shared.manifest import Manifest
from kedge_shared.protocol import DeviceFacts, Report
from kedge_shared.statement import Statement

#: Reads a slot's manifest, checked.
ReadManifest = Callable[[Slot], Manifest]


class Attester:
    """Makes statements of what the board runs.

    Args:
        settings: Of the board.
        facts: What it is, with its runtimes.
        read: Reads a slot's manifest.
    """

    def __init__(self, settings: AgentSettings, facts: DeviceFacts, read: ReadManifest) -> None:
        self._settings, self._facts, self._read = settings, facts, read

    def statement(self, state: State, report: Report) -> Statement[Running] | None:
        """Returns what the board runs after what ``report`` tells of.

        Returns:
            ``None`` where there is nothing to attest: no end of a deployment, no engine, or a
            manifest that this disk does not give any more (the engine itself runs on).
        """
        event, active = ATTESTED.get(report.phase), state.active
        if event is None or active is None:
            return None
        try:
            manifest = self._read(active)
        except KedgeError:
            return None
        running = Running(
            device=report.device, device_class=self._settings.device_class,
            workload=report.workload, event=event, deployment=report.deployment,
            model=manifest.model, release=active.release,
            release_counter=manifest.release_counter, engine=active.engine,
            manifest_path=manifest.target_path, manifest_sha256=active.manifest,
            verdict=Judged(
                code=report.verdict.code, cause=report.verdict.cause,
                evidence_sha256=evidence_hash(report.verdict),
            ),
            health=health_of(report.verdict), agent=self._facts.agent,
            runtimes=dict(self._facts.runtimes), boot_id=report.boot_id, epoch=state.epoch,
            counter=state.counter, clock=report.created, not_before=state.newest_time,
        )  # fmt: skip
        return state_running(manifest, running)

    def added(self, state: State, report: Report) -> Report:
        """Returns a report with the statement in it, not signed yet, where there is one."""
        found = self.statement(state, report)
        if found is None:
            return report
        return replace(report, attestation=msgspec.to_builtins(found))
