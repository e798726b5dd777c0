"""What an update works with on this board; made once, by the updater."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kedge_agent.blobs import BlobStore
from kedge_agent.clock import lower_bound, trusted_now
from kedge_agent.downloads import Downloader
from kedge_agent.evidence.heat import Heat
from kedge_agent.housekeeping import Housekeeping
from kedge_agent.journal import Journal
from kedge_agent.local_client import RunnerLink
from kedge_agent.network.window import window_open, zone_of
from kedge_agent.reporting import Reporter
from kedge_agent.settings import AgentSettings
from kedge_agent.tuf_client import ImageRepository
from kedge_shared.errors import one_line
from kedge_shared.phases import Phase
from kedge_shared.protocol import DeviceFacts
from kedge_shared.trust import Pinned
from kedge_shared.windows import WindowSpec

#: Where an update stops and waits for the maintenance window. Trial and shadow take the loop's
#: time: they belong to the work that the window is for.
_HELD: Mapping[str, frozenset[Phase]] = {
    "swap": frozenset({Phase.VERIFYING, Phase.ARMED}),
    "download": frozenset({Phase.DOWNLOADING, Phase.VERIFYING, Phase.ARMED}),
}


@dataclass(frozen=True)
class Board:
    """The parts.

    Attributes:
        settings: Configuration.
        journal: What the board remembers.
        store: Blobs.
        repository: Signed targets.
        housekeeping: What may stay on the disk.
        downloader: Artifacts by hash.
        runner: The live loop.
        reporter: Reports.
        pinned: What no server can change.
        facts: What the board is.
        send_reports: Sends what waits, if the server is there.
        heat: Reads what the board says of its heat.
        counted: Told of downloaded bytes.
        clock: Tells Unix seconds, by this board.
        grace_seconds: How long after its expiry the online roles' metadata is taken; 0 unless a
            bundle is installed and this board's configuration allows it.
    """

    settings: AgentSettings
    journal: Journal
    store: BlobStore
    repository: ImageRepository
    housekeeping: Housekeeping
    downloader: Downloader
    runner: RunnerLink
    reporter: Reporter
    pinned: Pinned
    facts: DeviceFacts
    send_reports: Callable[[], Awaitable[None]]
    counted: Callable[[int], None]
    heat: Callable[[], Heat] = Heat
    clock: Callable[[], float] = time.time
    grace_seconds: float = 0.0

    def remember(self, **changes: Any) -> None:
        """Saves changes of the deployment that are no change of phase."""
        state = self.journal.state
        if state.deployment is None:
            raise RuntimeError("there is no deployment")
        deployment = msgspec.structs.replace(state.deployment, **changes)
        self.journal.save(msgspec.structs.replace(state, deployment=deployment))

    def now(self) -> int:
        """Returns the time by which expiry is judged, Unix seconds."""
        return trusted_now(self.clock(), self.journal.state.newest_time)

    def held(self, phase: Phase) -> str:
        """Says why a phase may not begin now; empty if it may.

        What takes harm back, and a board that has no engine yet, wait for no window. Of the
        board's own and the rollout's both must be open.
        """
        deployment = self.journal.state.deployment
        if self.journal.state.active is None:
            return ""
        if deployment is not None and deployment.intent == "revert":
            return ""
        windows = (self.settings.maintenance, deployment.window if deployment else None)
        shut = (self._shut(each) for each in windows if each and phase in _HELD[each.holds])
        return next((reason for reason in shut if reason), "")

    def _shut(self, window: WindowSpec) -> str:
        past = lower_bound(self.journal.state.newest_time)
        opening = window_open(window, self.clock(), past, zone_of(self.settings.maintenance))
        return "" if opening.open else opening.reason

    def log(self, line: str) -> None:
        """Writes a line for whoever looks after this board."""
        stamp = time.strftime("%H:%M:%S")
        print(f"{stamp} {self.settings.device} {one_line(line)}", file=sys.stderr, flush=True)

    def collect_garbage(self) -> None:
        """Removes files that neither active, previous nor the deployment at hand needs."""
        self.housekeeping.collect(self.journal.state)

    def make_room(self, coming: Mapping[str, int]) -> None:
        """Makes room for files, hash → length.

        Raises:
            StorageError: They do not fit.
        """
        self.housekeeping.make_room(self.journal.state, coming)
