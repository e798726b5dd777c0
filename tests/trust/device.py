"""Everything that a board checks before a runtime sees anything, over repositories in memory."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from securesystemslib.signer import CryptoSigner

from kedge_agent.blobs import BlobStore
from kedge_agent.downloads import Downloader
from kedge_agent.fetching import fetch_all, verify_files
from kedge_agent.local_protocol import Slot
from kedge_agent.state import Deployment, State
from kedge_agent.tuf_client import ImageRepository
from kedge_shared import signing, wire
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import FileRef, Golden, Manifest
from kedge_shared.policy import ModelPolicy, policy_path
from kedge_shared.protocol import ASSIGNMENT_LIMIT_BYTES, ASSIGNMENT_TYPE, Assignment, ManifestRef
from kedge_shared.trust import DIRECTOR_PATH, DirectorKey, Pinned, Seen, check_assignment
from tests.shared import samples
from tests.trust.repository import TARGETS_URL, URL, MemoryRepository

ENGINE, REFERENCES, FRAME = b"an engine's bytes " * 20, b"golden references", b"a picture"
SERVER = "http://127.0.0.1:1"


@dataclass
class Fleet:
    """Both repositories, honest until a test takes something over.

    Attributes:
        repository: Image repository.
        director: Signs assignments.
        artifacts: Hash → bytes that the server has.
    """

    repository: MemoryRepository = field(default_factory=MemoryRepository)
    director: CryptoSigner = field(default_factory=signing.generate)
    artifacts: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.repository.delegate("targets", "shapes", ["models/shapes/*", "models/shapes/*/*/*"])
        self.announce(self.director)
        self.release("1.0", 10)

    def announce(self, director: CryptoSigner, epoch: int = 1) -> None:
        key = DirectorKey(epoch=epoch, key=signing.key_to_dict(director.public_key))
        self.repository.add("targets", DIRECTOR_PATH, wire.encode(key))
        self.repository.publish("targets")

    def manifest(self, release: str = "1.0", counter: int = 10, **changes: Any) -> Manifest:
        files = [
            FileRef(role=role, name=name, sha256=sha256_hex(data), length=len(data))  # type: ignore[arg-type]
            for role, name, data in (
                ("engine", "model.onnx", ENGINE), ("golden-references", "golden.json", REFERENCES),
            )
        ]  # fmt: skip
        return replace(
            samples.manifest(), release=release, release_counter=counter, files=tuple(files),
            golden=Golden(references=sha256_hex(REFERENCES)), **changes,
        )  # fmt: skip

    def policy(self, **changes: Any) -> ModelPolicy:
        frame = replace(samples.policy().golden[0], sha256=sha256_hex(FRAME), length=len(FRAME))
        return replace(samples.policy(), golden=(frame,), **changes)

    def release(self, release: str, counter: int, **changes: Any) -> ManifestRef:
        """Publishes a release as its owners would; returns what an assignment says of it."""
        manifest = self.manifest(release, counter, **changes)
        for data in (ENGINE, REFERENCES, FRAME):
            self.artifacts[sha256_hex(data)] = data
        self.repository.add("shapes", policy_path("shapes"), wire.encode(self.policy()))
        return self.put("shapes", manifest.target_path, wire.encode(manifest))

    def put(self, role: str, path: str, data: bytes) -> ManifestRef:
        self.repository.add(role, path, data)
        self.repository.publish(role, *(() if role == "targets" else ("targets",)))
        self.ref = ManifestRef(path=path, sha256=sha256_hex(data), length=len(data))
        return self.ref

    def assignment(self, ref: ManifestRef | None = None, **changes: Any) -> Assignment:
        now = int(time.time())
        fields: dict[str, Any] = {
            "manifest": ref or self.ref, "counter": now, "issued": now, "expires": now + 3600,
        }  # fmt: skip
        return replace(samples.assignment(), **(fields | changes))

    def assign(
        self, ref: ManifestRef | None = None, signer: CryptoSigner | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Returns a sealed assignment."""
        signed = self.assignment(ref, **changes)
        return signing.seal(signed, ASSIGNMENT_TYPE, signer or self.director)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The server's half of HTTP."""
        path = request.url.path
        if path.startswith("/api/v1/artifacts/"):
            body = self.artifacts.get(path.rpartition("/")[2])
        else:
            body = self.repository.files.get(
                path.replace("/tuf/metadata/", URL).replace("/tuf/targets/", TARGETS_URL)
            )
        return (
            httpx.Response(404)
            if body is None
            else httpx.Response(200, stream=httpx.ByteStream(body))
        )


class Device:
    """One board without a runtime.

    Attributes:
        seen: The newest it accepted.
    """

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "root.json").write_bytes(fleet.repository.pinned)
        self._fleet, self._folder, self.seen = fleet, folder, Seen()
        self.store = BlobStore(folder / "blobs")
        self.pinned: Pinned = samples.pinned()
        self.repository = ImageRepository(
            SERVER, "token", folder / "tuf", folder / "root.json",
            httpx.MockTransport(fleet.answer),
        )  # fmt: skip

    def take(self, envelope: dict[str, Any]) -> Slot:
        """Does what ``Updater._consider`` and ``Update`` do up to the preflight.

        Raises:
            KedgeError: Refused.
            Unfit: It does not fit the board.
        """
        self.repository.refresh(time.time())
        director = self.repository.director()
        key = signing.key_from_dict(dict(director.key))
        assignment = signing.unseal(
            envelope, ASSIGNMENT_TYPE, Assignment, key, limit_bytes=ASSIGNMENT_LIMIT_BYTES
        )
        seen = Seen(epoch=max(self.seen.epoch, director.epoch), counter=self.seen.counter)
        check_assignment(assignment, self.pinned, seen, int(time.time()))
        self.seen = Seen(epoch=assignment.epoch, counter=assignment.counter)
        assert assignment.manifest is not None
        return asyncio.run(self._fetch(assignment, assignment.manifest))

    async def _fetch(self, assignment: Assignment, ref: ManifestRef) -> Slot:
        deployment = Deployment(
            id=assignment.deployment, rollout=assignment.rollout, intent=assignment.intent,
            manifest=ref, counter=assignment.counter,
        )  # fmt: skip
        transport = httpx.MockTransport(self._fleet.answer)
        async with httpx.AsyncClient(base_url=SERVER, transport=transport) as http:
            loader = Downloader(http, self.store, self._folder / "partial", lambda _: None)
            fetched = await fetch_all(
                deployment, State(), self.repository, loader, self.store, self.pinned,
                samples.facts(), lambda _: None, time.time(), 0.0,
            )  # fmt: skip
        verify_files(fetched.slot, self.store)
        return fetched.slot
