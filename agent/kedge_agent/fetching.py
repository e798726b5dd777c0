"""The first steps of an update: what both repositories say, and every byte of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from kedge_agent.blobs import BlobStore
from kedge_agent.building.forms import form_of, needed
from kedge_agent.decisions import quarantined
from kedge_agent.downloads import Downloader
from kedge_agent.local_protocol import Slot
from kedge_agent.state import Deployment, State
from kedge_agent.tuf_client import ImageRepository
from kedge_shared.errors import TrustError
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, Manifest, read_manifest
from kedge_shared.policy import POLICY_LIMIT_BYTES, ModelPolicy, policy_path, read_policy
from kedge_shared.protocol import DeviceFacts, Verdict
from kedge_shared.resolver import lost, resolve
from kedge_shared.trust import Pinned, check_agreement, check_manifest


class Unfit(Exception):
    """A build is correctly signed and still not for this board now.

    Attributes:
        verdict: Why.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


@dataclass(frozen=True)
class Fetched:
    """Everything of a build, verified and stored.

    Attributes:
        slot: Names it.
        manifest: Of the build.
        policy: Of the model.
    """

    slot: Slot
    manifest: Manifest
    policy: ModelPolicy


async def fetch_all(
    deployment: Deployment,
    state: State,
    repository: ImageRepository,
    downloader: Downloader,
    store: BlobStore,
    pinned: Pinned,
    facts: DeviceFacts,
    make_room: Callable[[Mapping[str, int]], None],
    now: float,
    grace_seconds: float,
) -> Fetched:
    """Fetches a build by both repositories' word.

    Order matters: nothing is downloaded that is not listed, nothing large that does not fit.

    Args:
        deployment: What to fetch.
        state: Of the board.
        repository: What the builders signed.
        downloader: Brings files.
        store: Where they go.
        pinned: What no server can change.
        facts: What the board is.
        make_room: Called with hash → length of everything before any of it is fetched.
        now: Unix seconds by which expiry is judged.
        grace_seconds: How long after its expiry the online roles' metadata is still taken.

    Raises:
        TrustError: A check failed.
        Unfit: It does not fit the board, or the board threw it out before.
        ServiceError: The server is down; what was fetched stays.
        StorageError: There is no room for it, or the disk is full.
    """
    manifest_bytes, policy_bytes, slot_hashes = await asyncio.to_thread(
        _documents, deployment, repository, store, now, grace_seconds
    )
    manifest, policy = read_manifest(manifest_bytes), read_policy(policy_bytes)
    check_manifest(manifest, policy, deployment.manifest.path, pinned)
    fit = resolve(manifest, facts)
    if not fit.fits:
        raise Unfit(misfit(manifest, facts, fit.reason))
    known = quarantined(manifest.engine_hash, state, retry=deployment.retry)
    if known is not None:
        raise Unfit(known)
    form = form_of(manifest, fit)
    wanted = {file.sha256: file.length for file in needed(manifest, form)}
    wanted |= {frame.sha256: frame.length for frame in policy.golden}
    documents = {slot_hashes[0]: len(manifest_bytes), slot_hashes[1]: len(policy_bytes)}
    await asyncio.to_thread(make_room, wanted | documents)
    for sha256, length in wanted.items():
        await downloader.fetch(sha256, length)
    slot = Slot(
        release=manifest.release,
        manifest=slot_hashes[0],
        policy=slot_hashes[1],
        engine=manifest.engine_hash,
        form=form,
    )
    return Fetched(slot, manifest, policy)


def misfit(manifest: Manifest, facts: DeviceFacts, reason: str) -> Verdict:
    """Returns the verdict on a build that does not fit: harm, unless the board lost what it had."""
    cause: Literal["environment", "harm"] = "environment" if lost(manifest, facts) else "harm"
    return Verdict(code="misfit", reason=reason, cause=cause)


def _documents(
    deployment: Deployment,
    repository: ImageRepository,
    store: BlobStore,
    now: float,
    grace_seconds: float,
) -> tuple[bytes, bytes, tuple[str, str]]:
    repository.refresh(now, grace_seconds)
    ref = deployment.manifest
    listed = repository.find(ref.path)
    check_agreement(ref, listed.length, listed.sha256)
    parts = ref.path.split("/")
    if len(parts) < 2 or parts[0] != "models":
        raise TrustError("mix", f"{ref.path} is no place for a manifest")
    policy_at = policy_path(parts[1])
    manifest = repository.fetch(ref.path, MANIFEST_LIMIT_BYTES, store.root)
    policy = repository.fetch(policy_at, POLICY_LIMIT_BYTES, store.root)
    return manifest, policy, (listed.sha256, repository.find(policy_at).sha256)


def verify_files(slot: Slot, store: BlobStore) -> None:
    """Hashes every file of a build once more, as they lie on this disk.

    Raises:
        TrustError: One was altered.
        StorageError: One is missing.
    """
    manifest = read_manifest(store.read_verified(slot.manifest, MANIFEST_LIMIT_BYTES))
    policy = read_policy(store.read_verified(slot.policy, POLICY_LIMIT_BYTES))
    for file in needed(manifest, slot.form):
        store.open_verified(file.sha256, file.length).close()
    for frame in policy.golden:
        store.open_verified(frame.sha256, frame.length).close()
