"""A board's blob store filled from a build, as an update would leave it."""

from __future__ import annotations

from pathlib import Path

from kedge_agent.blobs import BlobStore
from kedge_agent.local_protocol import Slot
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import read_manifest
from kedge_shared.policy import read_policy


def put(store: BlobStore, data: bytes) -> str:
    """Stores bytes under their hash."""
    store.root.mkdir(parents=True, exist_ok=True)
    digest = sha256_hex(data)
    (store.root / digest).write_bytes(data)
    return digest


def put_build(store: BlobStore, folder: Path, policy: Path | None = None) -> Slot:
    """Stores a build of one class with the policy that judges it; returns its slot."""
    at = policy or folder.parent / "policy" / "policy.json"
    body = (folder / "manifest.json").read_bytes()
    manifest = read_manifest(body)
    for each in manifest.files:
        put(store, (folder / each.name).read_bytes())
    for frame in read_policy(at.read_bytes()).golden:
        put(store, (at.parent / "golden" / frame.name).read_bytes())
    return Slot(
        release=manifest.release, manifest=put(store, body), policy=put(store, at.read_bytes()),
        engine=manifest.engine_hash,
    )  # fmt: skip
