"""From a signed assignment to a deployment in the journal; nothing is downloaded for it yet."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from securesystemslib.signer import Key

from kedge_agent.board import Board
from kedge_agent.state import Deployment, State
from kedge_agent.tuf_client import ImageRepository
from kedge_shared import signing
from kedge_shared.errors import TrustError
from kedge_shared.phases import Event, Phase, advance
from kedge_shared.protocol import ASSIGNMENT_LIMIT_BYTES, ASSIGNMENT_TYPE, Assignment, Verdict
from kedge_shared.trust import Seen, check_assignment


class Intake:
    """Takes up what a board is told to run.

    Args:
        board: Whose journal it is.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._director: tuple[int, Key] | None = None

    async def accept(
        self, envelope: dict[str, Any], repository: ImageRepository, *, refresh: bool = False
    ) -> Deployment | None:
        """Verifies an assignment and writes down what it asks for.

        Args:
            envelope: As the director signed it.
            repository: Which says who the director is.
            refresh: Ask the repository even if the director's key is known.

        Returns:
            What is to be driven, or ``None`` where nothing is new.

        Raises:
            TrustError: It is not one this board may follow; it goes on as it was.
            ServiceError: The repository does not answer.
        """
        if refresh:
            self._director = None
        epoch, key = await self._director_key(envelope, repository)
        assignment = signing.unseal(
            envelope, ASSIGNMENT_TYPE, Assignment, key, limit_bytes=ASSIGNMENT_LIMIT_BYTES
        )
        board, state = self._board, self._board.journal.state
        seen = Seen(epoch=max(state.epoch, epoch), counter=state.counter)
        check_assignment(assignment, board.pinned, seen, board.now())
        accepted = msgspec.structs.replace(
            state, epoch=assignment.epoch, counter=assignment.counter, accepted=envelope,
            newest_time=max(state.newest_time, repository.proves(assignment.issued)),
        )  # fmt: skip
        # What was accepted before is not taken up again: a board may have gone on from it, by a
        # bundle or by hand.
        known = assignment.counter == state.counter or (
            state.deployment is not None and state.deployment.id == assignment.deployment
        )
        if assignment.manifest is None or assignment.intent == "hold" or known:
            board.journal.save(accepted)
            return None
        deployment = Deployment(
            id=assignment.deployment,
            rollout=assignment.rollout,
            intent=assignment.intent,
            manifest=assignment.manifest,
            counter=assignment.counter,
            retry=assignment.retry_of is not None,
            window=assignment.window,
        )
        return self.begin(deployment, accepted)

    def begin(self, deployment: Deployment, state: State) -> Deployment:
        """Writes a deployment down, with the report that tells of it.

        Args:
            deployment: Not begun yet.
            state: What the board remembers besides.

        Raises:
            StorageError: The disk is full or read-only; nothing has changed.
        """
        board = self._board
        phase = advance(Phase.IDLE, Event.ASSIGNED)
        if state.active is not None and state.active.manifest == deployment.manifest.sha256:
            # It runs already and was confirmed: that is the proof, nothing is done again.
            deployment = msgspec.structs.replace(
                deployment, slot=state.active, release=state.active.release,
                verdict=Verdict(code="ok", reason="runs already"),
            )  # fmt: skip
            phase = Phase.CONFIRMED
        deployment = msgspec.structs.replace(deployment, phase=phase)
        following = msgspec.structs.replace(state, deployment=deployment)
        board.journal.save(following, board.reporter.about(following))
        board.log(f"{deployment.intent} {deployment.manifest.path} ({deployment.id})")
        return deployment

    async def _director_key(
        self, envelope: dict[str, Any], repository: ImageRepository
    ) -> tuple[int, Key]:
        """Returns the key that may assign; asks the image repository again when it is another."""
        wanted = {
            each.get("keyid") for each in envelope.get("signatures", []) if isinstance(each, dict)
        }
        if self._director is None or self._director[1].keyid not in wanted:
            self._director = await asyncio.to_thread(self._fetch_director, repository)
        return self._director

    def _fetch_director(self, repository: ImageRepository) -> tuple[int, Key]:
        board = self._board
        repository.refresh(board.now(), board.grace_seconds)
        director = repository.director()
        if director.epoch < board.journal.state.epoch:
            raise TrustError("rollback", f"director of epoch {director.epoch} is an older one")
        return director.epoch, signing.key_from_dict(dict(director.key))
