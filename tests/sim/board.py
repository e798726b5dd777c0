"""The agent's real updater over a simulated runner, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from kedge_agent import facts, update
from kedge_agent.commands import client
from kedge_agent.commands.protocol import SOCKET, Accepted
from kedge_agent.local_protocol import PreflightJob, PreflightResult, Ratio
from kedge_agent.local_server import serve
from kedge_agent.metrics import MetricsSettings
from kedge_agent.network.window import WindowSettings
from kedge_agent.patience import BuildingSettings, ProbationSettings, ShadowSettings
from kedge_agent.server_client import ServerClient
from kedge_agent.settings import AgentSettings, BundleSettings
from kedge_agent.specs import SourceSpec
from kedge_agent.state import State
from kedge_agent.updater import Updater
from kedge_shared import api
from kedge_shared.phases import TERMINAL, Phase
from kedge_shared.protocol import Report
from tests.shared import samples
from tests.sim.runner import SimRunner
from tests.sim.world import World
from tests.waiting import PATIENCE

GOOD = PreflightResult(
    ok=True, fidelity=1.0, label_score=0.95, active_label_score=0.95, agreement=1.0,
    candidate_ms=5, active_ms=5, ratio=Ratio(median=1.0, low=0.9, high=1.1, rounds=40), frames=24,
)  # fmt: skip
Condition = Callable[[State], bool]


def settled(state: State) -> bool:
    return state.deployment is not None and state.deployment.phase in TERMINAL


@dataclass
class SimBoard:
    """One board.

    Attributes:
        world: Its server.
        folder: Its disk.
        runner: Its live loop.
        preflight: What the child will have measured.
        preflights: Jobs the child was given.
        patience: Seconds of probation at the most; a busy machine needs some to see any frame.
        watched_seconds: Of probation at the least.
        maintenance: Window, if any.
        building: Patience with plans that are built here.
        disk_budget_mb: Budget, if any.
        telemetry_seconds: Between windows.
        metrics: Prometheus endpoint, if any.
        bundles: What may be installed from a stick.
        clock: Tells Unix seconds, by this board.
    """

    world: World
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    name: str = "cam-1"
    device_class: str = "x86-onnxruntime"
    runner: SimRunner = field(default_factory=SimRunner)
    preflight: PreflightResult = GOOD
    preflights: list[PreflightJob] = field(default_factory=list)
    patience: float = PATIENCE
    watched_seconds: float = 0.1
    maintenance: WindowSettings | None = None
    building: BuildingSettings = field(default_factory=BuildingSettings)
    disk_budget_mb: float | None = None
    telemetry_seconds: float = 300.0
    metrics: MetricsSettings | None = None
    bundles: BundleSettings = field(default_factory=BundleSettings)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        token = self.world.operator.enrolment_tokens(api.TokenRequest())[0].token
        self.folder.mkdir()
        (self.folder / "token").write_text(token)

        async def run_preflight(job: PreflightJob, _: float) -> PreflightResult:
            self.preflights.append(job)
            return self.preflight

        self.monkeypatch.setattr(update, "run_preflight", run_preflight)
        self.monkeypatch.setattr(update, "_LOOK_SECONDS", 0.02)
        self.monkeypatch.setattr(facts, "gather", samples.facts)
        self.state = State()

    @property
    def settings(self) -> AgentSettings:
        return AgentSettings(
            server=self.world.url,
            root=self.world.trust.root,
            state_dir=self.folder / "state",
            device=self.name,
            device_class=self.device_class,
            source=SourceSpec(kind="video", path=self.folder / "none.mp4"),
            enrolment_token_file=self.folder / "token",
            poll_seconds=0.2,
            maintenance=self.maintenance,
            building=self.building,
            disk_budget_mb=self.disk_budget_mb,
            disk_reserve_mb=0,
            telemetry_seconds=self.telemetry_seconds,
            metrics=self.metrics,
            bundles=self.bundles,
            shadow=ShadowSettings(seconds=0.1),
            probation=ProbationSettings(
                seconds=self.watched_seconds, max_seconds=self.patience, min_frames=30
            ),
        )

    def run(self, until: Condition = settled, seconds: float = PATIENCE) -> State:
        """Runs the updater until its state is as wanted; it ends as by SIGTERM."""
        return asyncio.run(self._run(until, seconds))

    def rest(self, times: int = 3) -> State:
        """Runs the updater until it has rested so often: so many turns are done."""
        return self.run(lambda _: self._rests >= times)

    def command(self, command: Any, *, offline: bool = False, seconds: float = PATIENCE) -> Any:
        """Has a person at the board ask for something, and runs until that has ended.

        Args:
            command: What.
            offline: The server is away meanwhile.
            seconds: At most.

        Returns:
            The updater's answer.
        """
        return asyncio.run(self._command(command, offline, seconds))

    async def _run(self, until: Condition, seconds: float) -> State:
        async with self._running() as (updater, task):
            await asyncio.wait_for(self._wait(updater, task, until), seconds)
            # The report about it is on its way, and so is what comes after a confirmation.
            await asyncio.sleep(0.1)
            if settled(updater.state):
                await asyncio.wait({asyncio.ensure_future(self._resting.wait())}, timeout=PATIENCE)
        return self.state

    async def _command(self, command: Any, offline: bool, seconds: float) -> Any:
        away = httpx.MockTransport(_away) if offline else None
        async with self._running(away) as (updater, task):
            socket = self.settings.state_dir / SOCKET

            def asked() -> Any:
                while not socket.exists():
                    time.sleep(0.02)
                reply = client._exchange(socket, command)
                return asyncio.run(reply)

            socket.unlink(missing_ok=True)
            answer = await asyncio.wait_for(asyncio.to_thread(asked), seconds)
            if isinstance(answer, Accepted):

                def ended(state: State) -> bool:
                    mine = state.deployment is not None
                    return mine and state.deployment.id == answer.deployment and settled(state)  # type: ignore[union-attr]

                await asyncio.wait_for(self._wait(updater, task, ended), seconds)
                await asyncio.sleep(0.1)
        return answer

    @contextlib.asynccontextmanager
    async def _running(
        self, transport: httpx.AsyncBaseTransport | None = None
    ) -> AsyncIterator[tuple[Updater, asyncio.Future[None]]]:
        settings = self.settings
        settings.state_dir.mkdir(exist_ok=True)
        async with ServerClient(settings.server, transport) as server:
            updater = Updater(settings, server, self.clock)
            self._mark_rests(updater)
            listening = await serve(settings.socket, self.runner.handle)
            task = asyncio.ensure_future(updater.run())
            try:
                yield updater, task
            finally:
                self.state = updater.state
                await _ended(task)
                updater.close()
                listening.close()

    def _mark_rests(self, updater: Updater) -> None:
        """Notes while the updater rests: then everything is done that there was to do."""
        resting, rest = asyncio.Event(), updater._rest
        self._resting, self._rests = resting, 0

        async def marked(seconds: float) -> None:
            self._rests += 1
            resting.set()
            await rest(seconds)
            resting.clear()

        updater._rest = marked  # type: ignore[method-assign]

    @staticmethod
    async def _wait(updater: Updater, task: asyncio.Future[None], until: Condition) -> None:
        """Waits for a state that is saved, however soon another one follows."""
        seen, save = asyncio.Event(), updater._journal.save

        def noted(state: State, report: Report | None = None) -> None:
            save(state, report)
            if not seen.is_set() and until(state):
                seen.set()

        updater._journal.save = noted  # type: ignore[method-assign]
        while not seen.is_set() and not until(updater.state):
            if task.done():
                task.result()
            await asyncio.sleep(0.02)

    def install(self, release: str = "1.0", counter: int = 10) -> None:
        """Enrols if need be, publishes and rolls out a release and sees it confirmed."""
        self.run(lambda _: (self.folder / "state" / "identity.json").is_file())
        self.world.publish(release, counter)
        rollout = self.world.roll_out(release).id

        def known(state: State) -> bool:
            """It has ended, and the server has heard of it."""
            rows = self.world.operator.rollout_deployments(rollout) if settled(state) else ()
            return any(each.phase is Phase.CONFIRMED for each in rows)

        state = self.run(known)
        assert state.active is not None
        assert state.active.release == release
        self.world.tick()


def _away(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("away")


async def _ended(task: asyncio.Future[None]) -> None:
    """Ends the updater, asking again as people do: a library below may lose one cancellation."""
    for _ in range(60):
        task.cancel()
        done, _pending = await asyncio.wait({task}, timeout=1)
        if done:
            with contextlib.suppress(asyncio.CancelledError):
                task.result()
            return
    raise AssertionError("the updater does not end when it is told to")
