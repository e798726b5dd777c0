"""Begins an update from a bundle; it is driven like any other, with the bundle as its server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec

from kedge_agent.board import Board
from kedge_agent.bundles.files import BundleFiles, open_bundle, read_small, read_table
from kedge_agent.bundles.transport import ADDRESS, BundleTransport
from kedge_agent.downloads import Downloader
from kedge_agent.intake import Intake
from kedge_agent.state import Deployment
from kedge_agent.tuf_client import ImageRepository
from kedge_shared.bundle import Bundle
from kedge_shared.errors import InputError, TrustError
from kedge_shared.ids import fresh_id
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, read_manifest
from kedge_shared.protocol import ASSIGNMENT_LIMIT_BYTES, ManifestRef


@asynccontextmanager
async def bundle_board(board: Board, path: Path) -> AsyncIterator[tuple[Board, BundleFiles]]:
    """Gives a board that asks a bundle where it would ask its server.

    The trusted metadata and the blobs are the board's own: a bundle that is older than what the
    board knows is going back, and what is there whole is not copied again.

    Raises:
        InputError: The bundle cannot be used.
    """
    files = await asyncio.to_thread(open_bundle, path)
    transport, settings = BundleTransport(files), board.settings
    repository = ImageRepository(
        ADDRESS, "", settings.state_dir / "tuf", settings.root, transport=transport
    )
    try:
        async with httpx.AsyncClient(base_url=ADDRESS, transport=transport) as http:
            partial = settings.state_dir / "partial"
            asking = replace(
                board,
                repository=repository,
                downloader=Downloader(http, board.store, partial, board.counted),
                grace_seconds=settings.bundles.grace_days * 86400,
            )
            yield asking, files
    finally:
        repository.close()
        files.close()


async def begin(board: Board, files: BundleFiles) -> Deployment:
    """Verifies what a bundle brings and writes it down as the deployment at hand.

    Args:
        board: One that asks the bundle (:func:`bundle_board`).
        files: Of the bundle.

    Raises:
        InputError: The bundle cannot be used, or has nothing for this board or nothing new.
        TrustError: A signature, version, expiry or hash does not hold.
    """
    table = await asyncio.to_thread(read_table, files)
    name = f"assignments/{board.pinned.device}.json"
    if board.pinned.device in table.devices:
        data = await asyncio.to_thread(read_small, files, name, 2 * ASSIGNMENT_LIMIT_BYTES)
        envelope = _envelope(data)
        found = await Intake(board).accept(envelope, board.repository, refresh=True)
        if found is None:
            raise InputError("the assignment in the bundle is not new to this board")
        return found
    if not board.settings.bundles.without_assignment:
        raise InputError(
            f"the bundle has no assignment for {board.pinned.device}",
            "make it with --device, or allow bundles.without_assignment on this board",
        )
    return await _begin_image_only(board, table)


async def _begin_image_only(board: Board, table: Bundle) -> Deployment:
    """Begins on the builders' signatures alone, as this board's own configuration allows."""
    mine = [each for each in table.builds if each.device_class == board.pinned.device_class]
    if not mine:
        raise InputError(f"the bundle has no build for {board.pinned.device_class}")
    manifest = await asyncio.to_thread(_listed, board, mine[0].manifest)
    deployment = Deployment(
        id=fresh_id("usb"), rollout="", intent="install", manifest=manifest,
        counter=board.journal.state.counter,
    )  # fmt: skip
    return Intake(board).begin(deployment, board.journal.state)


def _listed(board: Board, ref: ManifestRef) -> ManifestRef:
    """Returns the manifest as the builders list it, if it is not older than what serves.

    Going back needs an assignment: whoever walks up to a board with an old stick has none.
    """
    board.repository.refresh(board.now(), board.grace_seconds)
    target = board.repository.find(ref.path)
    data = board.repository.fetch(ref.path, MANIFEST_LIMIT_BYTES, board.store.root)
    offered, active = read_manifest(data), board.journal.state.active
    if active is not None:
        serving = read_manifest(board.store.read_verified(active.manifest, MANIFEST_LIMIT_BYTES))
        if offered.release_counter < serving.release_counter:
            raise TrustError(
                "rollback",
                f"release {offered.release} is older than {serving.release}, which serves",
                "going back needs an assignment in the bundle",
            )
    return ManifestRef(path=target.path, sha256=target.sha256, length=target.length)


def _envelope(data: bytes) -> dict[str, Any]:
    try:
        envelope: dict[str, Any] = msgspec.json.decode(data, type=dict)
    except msgspec.MsgspecError as error:
        raise InputError(f"the assignment in the bundle cannot be read: {error}") from None
    return envelope
