"""The step of an update that builds: from a slot whose plan is wanting to a loadable one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from kedge_agent.board import Board
from kedge_agent.building.forms import loadable
from kedge_agent.building.maker import Held, Job, NotBuilt, Told, make
from kedge_agent.building.pacing import Pace
from kedge_agent.building.seal import Derived, sealed
from kedge_agent.disk import write_whole
from kedge_agent.errors import RunnerGone
from kedge_agent.fetching import Unfit
from kedge_agent.gpu import board_python
from kedge_agent.identity import seal_key
from kedge_agent.local_protocol import Form, Slot
from kedge_shared.errors import InputError, StorageError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import Manifest
from kedge_shared.phases import Phase
from kedge_shared.planfile import check_plan
from kedge_shared.planfit import against, cuda_major
from kedge_shared.plans import OnDevice, Plan
from kedge_shared.protocol import Verdict


@dataclass(frozen=True)
class Building:
    """Builds what a slot wants.

    Attributes:
        board: Whose.
        command: Returns what builds plans for a runtime, or ``None``.
    """

    board: Board
    command: Callable[[str], tuple[str, ...] | None] = board_python.maker

    async def built(self, slot: Slot, manifest: Manifest) -> Slot:
        """Returns the slot with a plan: the same where none is wanting.

        Raises:
            Unfit: The model cannot be built here (harm), or not now (environment).
            Held: The maintenance window closed meanwhile.
            TrustError: A file was altered on the board.
            StorageError: There is no room for the plan.
        """
        form = slot.form
        if form is None or form.way != "build" or form.seal is not None:
            return slot
        known = self._known(slot, form, manifest)
        if known is None:
            self.board.log(f"{slot.release}: {form.runtime} builds the plan on this board")
            try:
                known = await self._make(slot, form, manifest)
            except NotBuilt as error:
                raise Unfit(_verdict(error)) from None
            except Held as error:
                self._count(error)
                raise
        return msgspec.structs.replace(slot, form=known)

    def _known(self, slot: Slot, form: Form, manifest: Manifest) -> Form | None:
        """Returns the form of an engine here that was built from the same ONNX, if it still fits.

        Going back must not take a build.
        """
        state = self.board.journal.state
        for each in (state.active, state.previous):
            if (
                each is not None and each.form is not None and each.form.seal is not None
                and (each.engine, each.form.runtime) == (slot.engine, form.runtime)
                and self._holds(each.form, manifest)
            ):  # fmt: skip
                return each.form
        return None

    def _holds(self, form: Form, manifest: Manifest) -> bool:
        """Says whether a plan is there, is this board's, and fits what the board has now."""
        board = self.board
        try:
            plan = loadable(manifest, form, board.store).plan
        except (TrustError, StorageError):
            return False
        return (
            plan is not None and made_as(plan, manifest.on_device)
            and board.store.has(form.file) and not against(plan, board.facts)
        )  # fmt: skip

    async def _make(self, slot: Slot, form: Form, manifest: Manifest) -> Form:
        board, store = self.board, self.board.store
        command = self.command(form.runtime)
        if command is None:
            raise NotBuilt(f"{form.runtime} builds nothing on a board", harm=True)
        with ExitStack() as closing:
            onnx = closing.enter_context(store.open_verified(slot.engine))
            cache = form.timing_cache and closing.enter_context(
                store.open_verified(form.timing_cache)
            )
            job = Job(command, onnx, cache or None, manifest.on_device,
                      board.settings.building.seconds)  # fmt: skip
            pace = Pace(await self._frame_ms(), board.settings.building.slowdown)
            plan, told = await make(job, pace, self._frame_ms, self._shut)
        return await asyncio.to_thread(self._keep, plan, told, form, slot.engine)

    def _count(self, held: Held) -> None:
        """Notes that a window ended a build: one that takes longer than any would never end.

        Raises:
            Unfit: It has been ended often enough to tell.
        """
        deployment = self.board.journal.state.deployment
        ended = (*(deployment.builds_ended if deployment else ()), held.seconds)
        self.board.remember(builds_ended=ended)
        if len(ended) >= self.board.settings.building.windows:
            raise Unfit(_verdict(NotBuilt(_too_long(ended), harm=False))) from None

    def _shut(self) -> str:
        # A restart would stand there: what may not begin there now may not go on either.
        return self.board.held(Phase.VERIFYING)

    async def _frame_ms(self) -> float:
        try:
            return (await self.board.runner.state()).frame_ms
        except RunnerGone:
            return 0.0

    def _keep(self, data: bytes, told: Told, form: Form, onnx: str) -> Form:
        """Seals a plan and stores both."""
        board, facts = self.board, self.board.facts
        plan = Plan(
            file=sha256_hex(data), runtime=form.runtime, version=told.version, onnx=onnx,
            sm=() if facts.sm is None else (facts.sm,), cuda=cuda_major(facts),
            flags=told.flags,
            # TensorRT may have refused it.
            timing_cache=form.timing_cache if "timing-cache" in told.flags else None,
            memory_mb=told.memory_bytes / 2**20 or None,
        )  # fmt: skip
        try:
            check_plan(data, plan)
        except InputError as error:
            raise Unfit(Verdict(code="misfit", reason=error.what, cause="harm")) from None
        seal = sealed(Derived(plan=plan, length=len(data)),
                      seal_key(board.settings.state_dir))  # fmt: skip
        names = (plan.file, sha256_hex(seal))
        board.make_room({names[0]: len(data), names[1]: len(seal)})
        for name, body in zip(names, (data, seal), strict=True):
            write_whole(board.store.path(name), body)
        return msgspec.structs.replace(form, file=plan.file, seal=names[1])


def made_as(plan: Plan, wanted: OnDevice) -> bool:
    """Says whether a plan was built as a release wants it, which may forbid FP16. Pure.

    From TensorRT 11 on types are the ONNX's, and there is nothing to want.
    """
    flags = set(plan.flags)
    allowed = {name for name, on in (("float16", wanted.half), ("int8", wanted.int8)) if on}
    return "strongly-typed" in flags or flags & {"float16", "int8"} == allowed


def _too_long(ended: tuple[float, ...]) -> str:
    count = "a window" if len(ended) == 1 else f"{len(ended)} windows"
    return (
        f"{count} ended the build of the plan, the longest after {max(ended) / 60:.1f} minutes:"
        " make the window longer, or publish a plan for this board"
    )


def _verdict(error: NotBuilt) -> Verdict:
    """Only what the model is to blame for is harm; the rest may go well another time."""
    return Verdict(code="misfit", reason=str(error), cause="harm" if error.harm else "environment")
