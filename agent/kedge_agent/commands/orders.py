"""Carries out what was asked at the desk; the updater drives what follows from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kedge_agent import fetching
from kedge_agent.board import Board
from kedge_agent.commands.protocol import Accepted, Declined, GoBack, InstallBundle, Reply
from kedge_agent.commands.rollback import check_floor, ended, gone_back
from kedge_agent.update import Update
from kedge_shared.errors import KedgeError, ServiceError
from kedge_shared.ids import fresh_id
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, read_manifest
from kedge_shared.phases import TERMINAL, Phase
from kedge_shared.policy import POLICY_LIMIT_BYTES, read_policy
from kedge_shared.protocol import ManifestRef

#: An update that is here may still be put off for another.
_YIELDS = TERMINAL | {Phase.IDLE, Phase.DOWNLOADING, Phase.VERIFYING}
Answered = asyncio.Future[Reply]
Drive = Callable[[Update], Awaitable[None]]


class Orders:
    """A person's commands on one board.

    Args:
        board: It.
        drive: Drives an update until it is final or another command rings.
    """

    def __init__(self, board: Board, drive: Drive) -> None:
        self._board, self._drive = board, drive

    def declines(self, command: Any) -> Declined | None:
        """Says at once why a command cannot be taken now."""
        deployment = self._board.journal.state.deployment
        busy = deployment is not None and deployment.phase not in _YIELDS
        if deployment is not None and busy and isinstance(command, InstallBundle):
            return Declined(
                6, f"an update stands in {deployment.phase.value}",
                "wait for its end, or end it with `kedge agent rollback`",
            )  # fmt: skip
        return None

    async def obey(self, command: Any, answered: Answered) -> None:
        """Carries a command out; what is wrong with it is the answer."""
        try:
            if isinstance(command, InstallBundle):
                await self._install(Path(command.path), answered)
            elif isinstance(command, GoBack):
                await self._go_back(command.reason, answered)
        except KedgeError as error:
            if answered.done():
                self._board.log(str(error))
            else:
                answered.set_result(Declined(error.exit_code, error.what, error.mend))
        finally:
            if not answered.done():
                answered.set_result(Declined(6, "the agent was interrupted", "try again"))

    async def _install(self, path: Path, answered: Answered) -> None:
        # What reads tar files is loaded on the day that somebody brings one.
        from kedge_agent.bundles import install

        async with install.bundle_board(self._board, path) as (asking, files):
            deployment = await install.begin(asking, files)
            answered.set_result(Accepted(deployment.id))
            update = Update(asking)
            try:
                await self._drive(update)
            except ServiceError as error:
                # A stick that was pulled does not come back by itself, as a server does.
                update.give_up(f"{error}; install the bundle again")
                await self._board.send_reports()

    async def _go_back(self, reason: str, answered: Answered) -> None:
        board = self._board
        state = board.journal.state
        following = ended(state, reason)
        if following is None:
            serving = await asyncio.to_thread(self._check_previous)
            following = gone_back(state, reason, fresh_id("hand"), serving)
        board.journal.save(following, board.reporter.about(following))
        board.journal.show_slots()
        if following.deployment is None:
            raise RuntimeError("going back is of a deployment")
        board.log(f"{following.deployment.id}: {following.deployment.verdict.reason}")
        answered.set_result(Accepted(following.deployment.id))
        await self._drive(Update(board))
        await board.send_reports()

    def _check_previous(self) -> ManifestRef:
        """Hashes the previous engine before anything is given up for it.

        Returns:
            The manifest of the engine that serves.

        Raises:
            KedgeError: It was altered, or is not allowed any more.
        """
        state, store = self._board.journal.state, self._board.store
        if state.active is None:
            return ManifestRef(path="", sha256="0" * 64, length=1)
        body = store.read_verified(state.active.manifest, MANIFEST_LIMIT_BYTES)
        if state.previous is not None:
            fetching.verify_files(state.previous, store)
            before = store.read_verified(state.previous.manifest, MANIFEST_LIMIT_BYTES)
            policy = store.read_verified(state.active.policy, POLICY_LIMIT_BYTES)
            check_floor(read_manifest(before), read_policy(policy))
        path = read_manifest(body).target_path
        return ManifestRef(path=path, sha256=state.active.manifest, length=len(body))
