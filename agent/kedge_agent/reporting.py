"""Reports: queued with the state they tell of, signed when sent, sent until acknowledged."""

from __future__ import annotations

import time
from dataclasses import replace

from kedge_agent.errors import RunnerGone
from kedge_agent.identity import Identity
from kedge_agent.journal import Journal
from kedge_agent.local_client import RunnerLink
from kedge_agent.local_protocol import TakeWindow, Telemetry
from kedge_agent.server_client import ServerClient
from kedge_agent.settings import AgentSettings
from kedge_agent.state import State
from kedge_shared import signing
from kedge_shared.phases import Phase
from kedge_shared.protocol import REPORT_BATCH, REPORT_TYPE, Report, Verdict, Window

#: Sequence numbers come from the journal and go on over restarts, so one name is enough for all
#: of them; it changes with the journal itself (a board that was wiped begins anew).
_SEND_AT_ONCE = min(20, REPORT_BATCH)


class Reporter:
    """Makes and sends the board's reports.

    Args:
        settings: Of the board.
        journal: Where reports wait.
        boot_id: Of this journal.
    """

    def __init__(self, settings: AgentSettings, journal: Journal, boot_id: str) -> None:
        self._settings, self._journal, self._boot_id = settings, journal, boot_id

    def about(self, state: State, window: Window | None = None) -> Report:
        """Returns a report of where ``state`` stands."""
        deployment, active = state.deployment, state.active
        return Report(
            device=self._settings.device,
            boot_id=self._boot_id,
            seq=0,
            created=int(time.time()),
            deployment=deployment.id if deployment else "",
            workload=self._settings.workload,
            phase=deployment.phase if deployment else Phase.IDLE,
            engine=active.engine if active else "",
            release=active.release if active else "",
            verdict=deployment.verdict if deployment else Verdict(code="ok"),
            window=window,
        )

    async def collect(self, runner: RunnerLink) -> None:
        """Takes a window of telemetry from the runner and queues it."""
        try:
            answer = await runner.ask(TakeWindow(), 5)
        except RunnerGone:
            return
        if isinstance(answer, Telemetry) and answer.window.seconds > 0:
            self._journal.queue(self.about(self._journal.state, answer.window))

    async def send(self, server: ServerClient, identity: Identity) -> None:
        """Sends what waits, oldest first.

        Raises:
            ServiceError: The server is down or refuses; nothing is forgotten.
        """
        while waiting := self._journal.waiting(_SEND_AT_ONCE):
            envelopes = [
                signing.seal(replace(report, seq=seq), REPORT_TYPE, identity.signer)
                for seq, report in waiting
            ]
            await server.report(envelopes)
            self._journal.sent(seq for seq, _ in waiting)
