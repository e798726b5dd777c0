"""Keeps what a server knows by heart true: hears of every change, its own and other servers'."""

from __future__ import annotations

import threading
import time

from sqlalchemy import Engine, select
from sqlmodel import Session, col

from kedge_server.database import transaction
from kedge_server.devices.assignments import Director
from kedge_server.devices.index import PollIndex
from kedge_server.devices.tables import DeviceRow
from kedge_server.replicas import changes
from kedge_server.repository.service import ImageRepository
from kedge_server.rollouts.tables import DeploymentRow

#: Subject of a change of metadata that others than the scheduler signed.
PUBLISHED = "published"
_AT_ONCE = 1000
_LET_IN = select(col(DeviceRow.id), col(DeviceRow.token_hash), col(DeviceRow.key_id)).where(
    col(DeviceRow.revoked).is_(None)
)
_HURRY_SECONDS = 0.1


class Follower:
    """Applies changes to a server's memory. Thread-safe.

    Args:
        engine: Database.
        index: What polls are answered from.
        repository: TUF metadata.
        director: Signs assignments.
    """

    def __init__(
        self, engine: Engine, index: PollIndex, repository: ImageRepository, director: Director
    ) -> None:
        self._engine, self._index = engine, index
        self._repository, self._director = repository, director
        self._lock, self._last, self._looked = threading.Lock(), 0, 0.0

    def open(self, session: Session) -> None:
        """Reads everything, at the start."""
        # Before the rest: what changes while it is read is heard of again.
        self._last = changes.newest(session)
        self._read_all(session)

    def hurry(self) -> None:
        """Hears of changes now, because somebody asks who may have come a moment ago.

        Strangers must not make it look without end: within a tenth of a second it only waits for
        the look that may be under way.
        """
        if time.monotonic() - self._looked >= _HURRY_SECONDS:
            self.follow()
            return
        with self._lock:
            pass

    def follow(self) -> None:
        """Hears of what has changed since the last time."""
        with self._lock, transaction(self._engine) as session:
            self._looked = time.monotonic()
            found = changes.since(session, self._last)
            if found.known is None:
                self._read_all(session)
                self._index.forget_all()
            else:
                self._apply(session, found.known)
            self._last = found.upto

    def _read_all(self, session: Session) -> None:
        rows = session.execute(_LET_IN).all()
        for row in rows:
            self._index.add_device(row.id, row.token_hash, row.key_id)
        # Whoever was shut out since then.
        self._index.keep_only({row.id for row in rows})
        self._repository.refresh(session)
        self._director.adopt(self._repository.director(session))

    def _apply(self, session: Session, known: tuple[tuple[changes.Kind, str], ...]) -> None:
        named = {kind: [each for one, each in known if one == kind] for kind, _ in known}
        self._devices(session, sorted(set(named.get("device", ()))))
        for rollout in dict.fromkeys(named.get("rollout", ())):
            query = select(col(DeploymentRow.device)).where(
                col(DeploymentRow.rollout) == rollout, col(DeploymentRow.assigned).is_not(None)
            )
            self._index.forget(session.execute(query).scalars())
        metadata = named.get("metadata", ())
        if metadata:
            self._repository.refresh(session)
        if PUBLISHED in metadata:
            self._director.adopt(self._repository.director(session))
            self._index.forget_all()

    def _devices(self, session: Session, names: list[str]) -> None:
        for at in range(0, len(names), _AT_ONCE):
            some = names[at : at + _AT_ONCE]
            rows = session.execute(_LET_IN.where(col(DeviceRow.id).in_(some)))
            found = {each.id: each for each in rows}
            for each in some:
                row = found.get(each)
                if row is not None:
                    self._index.add_device(each, row.token_hash, row.key_id)
                else:
                    self._index.remove_device(each)
