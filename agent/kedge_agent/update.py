"""One deployment on this board, phase by phase. The table decides; here is what each phase does.

The phase is saved before its step begins. A step returns a ruling, the table says where that
leads, and what follows is saved again, together with the report that tells of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec

from kedge_agent import fetching
from kedge_agent.board import Board
from kedge_agent.building.maker import Held
from kedge_agent.building.step import Building
from kedge_agent.decisions import Ruling, harm, judge_preflight, unfinished
from kedge_agent.errors import RunnerGone
from kedge_agent.evidence.verdicts import Served, judge_probation, judge_shadow
from kedge_agent.local_protocol import (
    Done,
    Drop,
    Failed,
    LoadCandidate,
    PreflightJob,
    Request,
    RollBack,
    RunnerState,
    Slot,
    StartShadow,
    Swap,
)
from kedge_agent.preflight_process import run_preflight
from kedge_agent.state import Deployment
from kedge_shared.errors import InputError, KedgeError, ServiceError, StorageError, TrustError
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, Manifest, read_manifest
from kedge_shared.phases import RESUME, TERMINAL, Cause, Event, Phase, advance
from kedge_shared.policy import POLICY_LIMIT_BYTES, ModelPolicy, read_policy
from kedge_shared.protocol import Verdict, VerdictCode

_LOOK_SECONDS = 0.5
#: Loading may take long on a small board; the loop runs on meanwhile.
_LOAD_SECONDS = 300.0
#: Of the time of a preflight; more rounds must not make a slow board's engine look hung.
_RACE_SHARE = 0.25
_SWITCH_SECONDS = 30.0
#: The runner is restarted by the supervisor; so long a silence is a broken board.
_RUNNER_SECONDS = 60.0
#: The server does not have the file: waiting does not mend it, another assignment may.
_GONE = frozenset({404, 410})
_CODES: Mapping[str, VerdictCode] = {
    "memory": "memory", "disk": "disk", "trust": "trust", "misfit": "misfit",
}  # fmt: skip

Step = Callable[[], Awaitable[Ruling]]


class Update:
    """Drives the deployment in the journal to its end.

    Args:
        board: What this board works with.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._steps: Mapping[Phase, Step] = {
            Phase.DOWNLOADING: self._download,
            Phase.VERIFYING: self._verify,
            Phase.PREFLIGHT: self._preflight,
            Phase.SHADOW: self._shadow,
            Phase.ARMED: self._armed,
            Phase.SWAPPING: self._swap,
            Phase.PROBATION: self._probation,
            Phase.ROLLING_BACK: self._restore,
        }

    @property
    def _deployment(self) -> Deployment:
        deployment = self._board.journal.state.deployment
        if deployment is None:
            raise RuntimeError("there is no deployment to drive")
        return deployment

    async def drive(self) -> None:
        """Goes on until the deployment is final or has to wait for the maintenance window.

        Raises:
            ServiceError: The server went away while downloading; the phase stays.
        """
        while (phase := self._deployment.phase) not in TERMINAL and phase is not Phase.IDLE:
            if why := self._board.held(phase):
                return await self._hold(why)
            try:
                ruling = await self._guarded(phase)
            except Held as error:
                return await self._hold(str(error))
            if ruling.event is None:
                raise RuntimeError(f"{phase.value} ended without an event")
            self._move(phase, ruling.event, ruling.verdict)
            await self._board.send_reports()
        if self._deployment.phase is Phase.CONFIRMED:
            await self._tidy()

    def give_up(self, reason: str) -> None:
        """Ends a download whose source is gone and will not come back by itself."""
        ruling = self._environment(self._deployment.phase, "network", reason)
        self._move(self._deployment.phase, Event.ENVIRONMENT, ruling.verdict)

    async def _hold(self, why: str) -> None:
        """Stands where a restart would stand, says so once, and leaves the rest to a later drive.

        Waiting here would keep the updater from polling: a board must hear of a recall meanwhile.
        """
        board, deployment = self._board, self._deployment
        if deployment.phase is Phase.ARMED:
            with suppress(KedgeError):
                await self._ask(Drop("candidate"), _SWITCH_SECONDS)
        verdict = Verdict(code="ok", reason=why)
        # What was said when it began to wait may say more: what was given up for it.
        if deployment.verdict.reason.endswith(why):
            return
        board.remember(phase=RESUME[deployment.phase], verdict=verdict)
        board.journal.queue(board.reporter.about(board.journal.state))
        board.log(f"{deployment.release or deployment.id}: {why}")

    async def _guarded(self, phase: Phase) -> Ruling:
        """Runs a step; trouble of the board is the environment's, not the engine's."""
        try:
            return await self._steps[phase]()
        except (TrustError, InputError) as error:
            return self._rejected(phase, "trust", str(error), Cause.HARM)
        except fetching.Unfit as error:
            return Ruling(Event.REJECTED, replace(error.verdict, stopped_in=phase))
        except StorageError as error:
            return self._environment(phase, "disk", str(error))
        except RunnerGone as error:
            return self._environment(phase, "crash", str(error))
        except ServiceError as error:
            if error.status not in _GONE:
                raise
            return self._environment(phase, "network", str(error))

    def _rejected(self, phase: Phase, code: VerdictCode, reason: str, cause: Cause) -> Ruling:
        verdict = Verdict(code=code, reason=reason, cause=cause.value, stopped_in=phase)
        if phase in {Phase.SWAPPING, Phase.PROBATION}:
            return Ruling(Event.HARM, verdict)
        return Ruling(Event.RESTORED if phase is Phase.ROLLING_BACK else Event.REJECTED, verdict)

    def _environment(self, phase: Phase, code: VerdictCode, reason: str) -> Ruling:
        verdict = Verdict(code=code, reason=reason, cause="environment", stopped_in=phase)
        return Ruling(Event.RESTORED if phase is Phase.ROLLING_BACK else Event.ENVIRONMENT, verdict)

    def _move(self, phase: Phase, event: Event, verdict: Verdict) -> None:
        """Saves the phase that follows, before anything of it is done."""
        journal, deployment = self._board.journal, self._deployment
        after = advance(phase, event)
        changes: dict[str, Any] = {"phase": after}
        if not (phase is Phase.ROLLING_BACK and deployment.verdict.cause):
            changes["verdict"] = verdict
        if after is Phase.PROBATION:
            changes["probation_began"] = time.time()
        state = journal.state
        slots: dict[str, Any] = {}
        if (phase, event) == (Phase.SWAPPING, Event.SWAPPED):
            slots = {"active": deployment.slot, "previous": state.active}
        quarantine = dict(state.quarantine)
        if event is Event.HARM and deployment.slot is not None:
            quarantine[deployment.slot.engine] = verdict.reason
        following = msgspec.structs.replace(
            state,
            deployment=msgspec.structs.replace(deployment, **changes),
            quarantine=quarantine,
            **slots,
        )
        journal.save(following, self._board.reporter.about(following))
        if slots or after in TERMINAL:
            journal.show_slots()
        self._board.log(f"{deployment.release or deployment.id}: {after.value} {verdict.reason}")

    async def _download(self) -> Ruling:
        board = self._board
        fetched = await fetching.fetch_all(
            self._deployment, board.journal.state, board.repository, board.downloader,
            board.store, board.pinned, board.facts, board.make_room,
            board.now(), board.grace_seconds,
        )  # fmt: skip
        board.remember(slot=fetched.slot, release=fetched.manifest.release)
        return Ruling(Event.FETCHED, Verdict(code="ok"))

    async def _verify(self) -> Ruling:
        slot = self._slot()
        await asyncio.to_thread(fetching.verify_files, slot, self._board.store)
        return Ruling(Event.VERIFIED, Verdict(code="ok"))

    async def _preflight(self) -> Ruling:
        board, slot = self._board, self._slot()
        manifest, policy = self._documents(slot)
        built = await Building(board).built(slot, manifest)
        if built != slot:
            slot = built
            board.remember(slot=slot)
        job = PreflightJob(
            blobs=str(board.store.root),
            candidate=slot,
            active=board.journal.state.active,
            threads=board.settings.threads,
            rounds=board.settings.preflight_rounds,
            race_seconds=board.settings.preflight_seconds * _RACE_SHARE,
            sealer=dict(board.store.sealer) if board.store.sealer else None,
        )
        result = await run_preflight(job, board.settings.preflight_seconds)
        return judge_preflight(result, manifest, policy)

    async def _shadow(self) -> Ruling:
        board, slot = self._board, self._slot()
        manifest, _ = self._documents(slot)
        failed = await self._ask(LoadCandidate(slot), _LOAD_SECONDS)
        if failed is not None:
            return self._failed(failed, Phase.SHADOW)
        if board.journal.state.active is None:
            return Ruling(Event.PASSED, Verdict(code="ok", reason="first engine on this board"))
        if (await board.runner.state()).deferred:
            return Ruling(Event.PASSED, Verdict(code="ok", reason="no room for a shadow"))
        patience = board.settings.shadow
        await self._ask(StartShadow(patience.share, patience.stills), _SWITCH_SECONDS)
        until = time.monotonic() + patience.seconds
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            evidence = (await board.runner.state()).evidence
            if evidence is None:
                raise RunnerGone("runner was restarted during the shadow")
            ended = time.monotonic() >= until
            ruling = judge_shadow(evidence, manifest, board.settings.probation, ended=ended)
            if ruling.event is not None:
                board.remember(proof=evidence.proof, tracks=evidence.tracks)
                return ruling

    async def _armed(self) -> Ruling:
        return Ruling(Event.SWAP, Verdict(code="ok"))

    async def _swap(self) -> Ruling:
        failed = await self._ask(Swap(), _LOAD_SECONDS)
        if failed is not None:
            return self._failed(failed, Phase.SWAPPING)
        return Ruling(Event.SWAPPED, Verdict(code="ok"))

    async def _probation(self) -> Ruling:
        board, slot = self._board, self._slot()
        manifest, policy = self._documents(slot)
        began, frames_before = self._deployment.probation_began or time.time(), None
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            runner = await self._patiently()
            if runner.active is None or runner.active.manifest != slot.manifest:
                return _not_served(runner)
            frames_before = runner.frames if frames_before is None else frames_before
            ruling = judge_probation(
                runner.evidence if board.journal.state.previous else None,
                self._deployment.proof, manifest, policy, board.settings.probation,
                Served(runner.frames - frames_before, max(0.0, time.time() - began), board.heat()),
            )  # fmt: skip
            if ruling.event is not None:
                return ruling

    async def _restore(self) -> Ruling:
        """Makes the older engine serve; ``slots.json`` says so before the runner is asked."""
        board = self._board
        state = board.journal.state
        bad, old = self._deployment.slot, state.active
        # By manifest: a release may change no more than how the same engine is read.
        if bad is not None and state.active is not None and state.active.manifest == bad.manifest:
            old = state.previous
        board.journal.save(msgspec.structs.replace(state, active=old, previous=None))
        board.journal.show_slots()
        runner = await self._patiently()
        if runner.active is not None and (old is None or runner.active.manifest != old.manifest):
            await self._put_back(runner, old)
        return Ruling(Event.RESTORED, self._deployment.verdict)

    async def _put_back(self, runner: RunnerState, old: Slot | None) -> None:
        if old is None:
            # Nothing to go back to: the runner starts again without an engine.
            with suppress(ProcessLookupError):
                os.kill(runner.pid, signal.SIGTERM)
            return
        if runner.previous is not None and runner.previous.manifest == old.manifest:
            await self._ask(RollBack(), _LOAD_SECONDS)
            return
        await self._ask(LoadCandidate(old), _LOAD_SECONDS)
        await self._ask(Swap(), _LOAD_SECONDS)
        await self._ask(Drop("previous"), _SWITCH_SECONDS)

    async def _tidy(self) -> None:
        """After a confirmation: the older engine's memory and the files nobody needs go back."""
        with suppress(KedgeError):
            await self._ask(Drop("previous"), _SWITCH_SECONDS)
            await asyncio.to_thread(self._board.collect_garbage)

    async def _patiently(self) -> RunnerState:
        """Returns the runner's state, waiting while the supervisor restarts it."""
        until = time.monotonic() + _RUNNER_SECONDS
        while True:
            try:
                return await self._board.runner.state()
            except RunnerGone:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_LOOK_SECONDS)

    async def _ask(self, request: Request, seconds: float) -> Failed | None:
        answer = await self._board.runner.ask(request, seconds)
        return None if isinstance(answer, Done) else _as_failed(answer)

    def _failed(self, failed: Failed, phase: Phase) -> Ruling:
        code = _CODES.get(failed.code)
        if code is None:
            return harm("crash", failed.reason, phase)
        if code == "trust":
            return self._rejected(phase, code, failed.reason, Cause.HARM)
        return self._environment(phase, code, failed.reason)

    def _slot(self) -> Slot:
        slot = self._deployment.slot
        if slot is None:
            raise StorageError("the journal names no files for this deployment")
        return slot

    def _documents(self, slot: Slot) -> tuple[Manifest, ModelPolicy]:
        store = self._board.store
        manifest = read_manifest(store.read_verified(slot.manifest, MANIFEST_LIMIT_BYTES))
        return manifest, read_policy(store.read_verified(slot.policy, POLICY_LIMIT_BYTES))


def _not_served(runner: RunnerState) -> Ruling:
    """Rules on a probation whose engine the runner does not serve.

    It says why when it went back by itself. Where it does not, it was started by a ``slots.json``
    older than the journal: the board stopped between the two, and the engine has done nothing.
    """
    if runner.active is not None and not runner.fell_back:
        return Ruling(Event.ENVIRONMENT, unfinished(Phase.PROBATION))
    reason = runner.fell_back or "the runner does not serve the new engine any more"
    return harm("crash", reason, Phase.PROBATION)


def _as_failed(answer: object) -> Failed:
    if isinstance(answer, Failed):
        return answer
    return Failed("state", "runner answers something else than it was asked")
