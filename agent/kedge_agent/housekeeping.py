"""Keeps the agent's files within bounds; what may go is decided in :mod:`kedge_agent.retention`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kedge_agent.blobs import BlobStore
from kedge_agent.building.forms import needed
from kedge_agent.disk import disk_error, free_bytes
from kedge_agent.local_protocol import Slot
from kedge_agent.retention import MIB, Room, Stored, plan, sweep
from kedge_agent.state import State
from kedge_shared.errors import KedgeError, StorageError
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, read_manifest
from kedge_shared.policy import POLICY_LIMIT_BYTES, read_policy


@dataclass(frozen=True)
class Housekeeping:
    """Blobs and broken-off downloads of one board.

    Attributes:
        store: Whole files.
        partial: Folder of what is not whole.
        budget_mb: MiB that all of them may take; ``None`` is what the disk has.
        reserve_mb: MiB of the disk that are left for others.
    """

    store: BlobStore
    partial: Path
    budget_mb: float | None
    reserve_mb: float

    def collect(self, state: State) -> None:
        """Removes what neither active, previous nor the deployment at hand stands on.

        Raises:
            KedgeError: A document cannot be read: then nothing is known to be needless, and
                nothing is removed.
            StorageError: The disk cannot be written.
        """
        kept = self._kept(state.active, state.previous, _at_hand(state))
        self._remove(sweep(self._stored(), kept))

    def make_room(self, state: State, coming: Mapping[str, int]) -> None:
        """Makes room for a build before a byte of it is fetched.

        Args:
            state: Of the board.
            coming: Hash → length of every file of the build.

        Raises:
            StorageError: It does not fit beside active and previous, or the disk cannot be written.
        """
        stored = list(self._stored())
        try:
            kept = self._kept(state.active, state.previous)
        except KedgeError:
            kept = {each.name for each in stored}
        budget = None if self.budget_mb is None else int(self.budget_mb * MIB)
        room = Room(free=self._free(), reserve=int(self.reserve_mb * MIB), budget=budget)
        found = plan(stored, kept, coming, room)
        if found.short:
            raise StorageError(
                f"the build does not fit: {found.short / MIB:.1f} MiB are wanting beside the "
                "active and the previous engine",
                "free space, or raise disk_budget_mb",
            )
        self._remove(found.remove)

    def _free(self) -> int:
        self.store.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return free_bytes(self.store.root)

    def _stored(self) -> Iterator[Stored]:
        yield from _files(self.store.root, "blob")
        yield from _files(self.partial, "partial")

    def _remove(self, gone: Iterable[Stored]) -> None:
        folders = {"blob": self.store.root, "partial": self.partial}
        for each in gone:
            path = folders[each.kind] / each.name
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise disk_error(path, error) from None

    def _kept(self, *slots: Slot | None) -> set[str]:
        kept: set[str] = set()
        for slot in slots:
            if slot is not None:
                kept |= self._needed(slot)
        return kept

    def _needed(self, slot: Slot) -> set[str]:
        """Returns every hash that a slot stands on."""
        store = self.store
        manifest = read_manifest(store.read_verified(slot.manifest, MANIFEST_LIMIT_BYTES))
        policy = read_policy(store.read_verified(slot.policy, POLICY_LIMIT_BYTES))
        files = {each.sha256 for each in needed(manifest, slot.form)}
        if slot.form is not None:
            files |= {each for each in (slot.form.file, slot.form.seal) if each is not None}
        return {slot.manifest, slot.policy} | files | {each.sha256 for each in policy.golden}


def _at_hand(state: State) -> Slot | None:
    return state.deployment.slot if state.deployment else None


def _files(folder: Path, kind: Literal["blob", "partial"]) -> Iterator[Stored]:
    try:
        for path in folder.iterdir():
            yield Stored(name=path.name, length=path.stat().st_size, kind=kind)
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_error(folder, error) from None
