"""Reports: queued with the state they tell of, signed when sent, sent until acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kedge_agent.attesting import Attester
from kedge_agent.errors import RunnerGone
from kedge_agent.identity import Identity
from kedge_agent.journal import Journal
from kedge_agent.local_client import RunnerLink
from kedge_agent.local_protocol import RunnerState, TakeWindow, Telemetry
from kedge_agent.metrics import Snapshot
from kedge_agent.sensors.sampler import Sampler
from kedge_agent.server_client import ServerClient
from kedge_agent.settings import AgentSettings
from kedge_agent.state import State
from kedge_shared import signing
from kedge_shared.attestation import RUNNING_TYPE
from kedge_shared.errors import ServiceError
from kedge_shared.histogram import Histogram, merge
from kedge_shared.phases import Phase
from kedge_shared.protocol import REPORT_BATCH, REPORT_TYPE, Report, Verdict, Window

#: Sequence numbers come from the journal and go on over restarts, so one name is enough for all
#: of them; it changes with the journal itself (a board that was wiped begins anew).
_SEND_AT_ONCE = min(20, REPORT_BATCH)
#: Answers to what no second try mends: malformed, not to be trusted, too long.
_UNUSABLE = frozenset({400, 413, 422})


class Reporter:
    """Makes and sends the board's reports.

    Args:
        settings: Of the board.
        journal: Where reports wait.
        boot_id: Of this journal.
        sampler: Reads the board's sensors.
        attester: Says what the board runs.
        clock: Tells Unix seconds, by this board.

    Attributes:
        last: Window that was collected last, or ``None``.
        latency_ms: Frame times of all windows since the start.
        detections: Class name → count, since the start.
    """

    def __init__(
        self,
        settings: AgentSettings,
        journal: Journal,
        boot_id: str,
        sampler: Sampler,
        attester: Attester,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._journal, self._boot_id = settings, journal, boot_id
        self._sampler, self._attester, self._clock = sampler, attester, clock
        self.last: Window | None = None
        self.latency_ms, self.detections = Histogram(), Counter[str]()

    def about(self, state: State, window: Window | None = None) -> Report:
        """Returns a report of where ``state`` stands; with a window, it tells of nothing else."""
        deployment, active = state.deployment, state.active
        report = Report(
            device=self._settings.device,
            boot_id=self._boot_id,
            seq=0,
            created=max(0, int(self._clock())),
            deployment=deployment.id if deployment else "",
            workload=self._settings.workload,
            phase=deployment.phase if deployment else Phase.IDLE,
            engine=active.engine if active else "",
            release=active.release if active else "",
            verdict=deployment.verdict if deployment else Verdict(code="ok"),
            window=window,
        )
        return report if window else self._attester.added(state, report)

    async def collect(self, runner: RunnerLink) -> None:
        """Takes a window of telemetry from the runner, adds the sensors' and queues it.

        Raises:
            StorageError: The disk is full or read-only; the window is lost.
        """
        try:
            answer = await runner.ask(TakeWindow(), 5)
            gap = (await runner.state()).swap_gap_ms
        except RunnerGone:
            return
        if not isinstance(answer, Telemetry) or answer.window.seconds <= 0:
            return
        board = await asyncio.to_thread(self._sampler.take)
        window = replace(answer.window, board=board, swap_gap_ms=gap or None)
        self.last = window
        self.latency_ms = merge([self.latency_ms, window.latency_ms])
        self.detections.update(window.detections)
        self._journal.queue(self.about(self._journal.state, window))

    async def snapshot(self, runner: RunnerLink) -> Snapshot:
        """Returns what there is to tell Prometheus now.

        Raises:
            StorageError: The journal cannot be read.
        """
        try:
            loop: RunnerState | None = await runner.state(2)
        except RunnerGone:
            loop = None
        state = self._journal.state
        return Snapshot(
            device=self._settings.device,
            release=state.active.release if state.active else "",
            phase=state.deployment.phase.value if state.deployment else "",
            runner=loop,
            latency_ms=self.latency_ms,
            detections=dict(self.detections),
            board=self.last.board if self.last else None,
            waiting=self._journal.count_waiting,
            lost=self._journal.lost,
            downloaded=state.bytes_downloaded,
        )

    async def send(self, server: ServerClient, identity: Identity) -> None:
        """Sends what waits, oldest first.

        A report that the server does not take (it names one by refusing the request) is set aside
        and counted, so that it does not keep back those behind it.

        Raises:
            ServiceError: The server is down or refuses this board; nothing is forgotten.
            StorageError: The journal cannot be written; what was sent is sent again.
        """
        at_once = _SEND_AT_ONCE
        while waiting := self._journal.waiting(at_once):
            try:
                await server.report([self._sealed(*each, identity) for each in waiting])
            except ServiceError as error:
                if error.status not in _UNUSABLE:
                    raise
                if len(waiting) == 1:
                    self._journal.give_up(waiting[0][0])
                at_once = 1
            else:
                self._journal.sent(seq for seq, _ in waiting)

    def _sealed(self, seq: int, report: Report, identity: Identity) -> dict[str, Any]:
        told = replace(report, seq=seq, lost=self._journal.lost)
        if report.attestation is not None:
            sealed = signing.seal(report.attestation, RUNNING_TYPE, identity.signer)
            told = replace(told, attestation=sealed)
        return signing.seal(told, REPORT_TYPE, identity.signer)
