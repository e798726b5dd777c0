"""Makes the updater's parts: the one place on its side that knows them all."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from kedge_agent import facts
from kedge_agent.attesting import Attester
from kedge_agent.blobs import BlobStore
from kedge_agent.board import Board
from kedge_agent.downloads import Downloader
from kedge_agent.evidence.heat import Heat
from kedge_agent.housekeeping import Housekeeping
from kedge_agent.identity import Identity, sealer
from kedge_agent.journal import Journal
from kedge_agent.local_client import RunnerLink
from kedge_agent.local_protocol import Slot
from kedge_agent.reporting import Reporter
from kedge_agent.sensors import throttling
from kedge_agent.sensors.sampler import Sampler
from kedge_agent.server_client import ServerClient
from kedge_agent.settings import AgentSettings
from kedge_agent.tuf_client import ImageRepository
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, Manifest, read_manifest
from kedge_shared.protocol import DeviceFacts
from kedge_shared.trust import Pinned

_ROOT = Path("/")


def make_board(
    settings: AgentSettings,
    server: ServerClient,
    journal: Journal,
    me: Identity,
    send_reports: Callable[[], Awaitable[None]],
    clock: Callable[[], float],
    closing: contextlib.ExitStack,
) -> Board:
    """Returns what an update works with.

    Args:
        settings: Configuration.
        server: Connection, let in.
        journal: Of this board.
        me: Who it is.
        send_reports: Sends what waits, if the server is there.
        clock: Tells Unix seconds, by this board.
        closing: Takes what is to be closed in the end.
    """
    store = BlobStore(settings.blobs, sealer(settings.state_dir))
    partial = settings.state_dir / "partial"
    tuf = settings.state_dir / "tuf"
    repository = ImageRepository(server.base, server.bearer, tuf, settings.root)
    closing.callback(repository.close)

    def counted(count: int) -> None:
        journal.state = msgspec.structs.replace(
            journal.state, bytes_downloaded=journal.state.bytes_downloaded + count
        )

    found = facts.gather()
    return Board(
        settings=settings,
        journal=journal,
        store=store,
        repository=repository,
        housekeeping=Housekeeping(
            store, partial, settings.disk_budget_mb, settings.disk_reserve_mb
        ),
        downloader=Downloader(
            server.http, store, partial, counted,
            bytes_per_second=settings.download_bytes_per_second,
        ),
        runner=RunnerLink(settings.socket),
        reporter=_reporter(settings, journal, store, found, clock),
        pinned=Pinned(
            device=me.device,
            key_id=me.signer.public_key.keyid,
            device_class=settings.device_class,
            models=settings.models,
            workload=settings.workload,
        ),
        facts=found,
        send_reports=send_reports,
        counted=counted,
        clock=clock,
        heat=_heat,
    )  # fmt: skip


def _reporter(
    settings: AgentSettings,
    journal: Journal,
    store: BlobStore,
    found: DeviceFacts,
    clock: Callable[[], float],
) -> Reporter:
    def manifest(slot: Slot) -> Manifest:
        return read_manifest(store.read_verified(slot.manifest, MANIFEST_LIMIT_BYTES))

    attester = Attester(settings, found, manifest)
    return Reporter(settings, journal, journal.name, Sampler(settings.state_dir), attester, clock)


def _heat() -> Heat:
    found = throttling.look(_ROOT)
    return Heat(bool(found.now) if found.measured else None)
