"""Collection takes what nobody needs and nothing else, whatever happened before."""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlmodel import Session, SQLModel, col, delete, select
from tuf.api.metadata import Metadata, TargetFile, Targets
from typer.testing import CliRunner

from kedge_server.artifacts.store import ArtifactStore
from kedge_server.audit.tables import AuditRow
from kedge_server.cli import app
from kedge_server.database import connect
from kedge_server.devices.tables import AssignmentRow, DeviceRow
from kedge_server.operation.collect import Collected, collect
from kedge_server.releases.tables import BuildRow
from kedge_server.repository.tables import MetadataRow
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared import signing, wire
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import FileRef, Golden, read_manifest
from kedge_shared.protocol import ASSIGNMENT_TYPE, Assignment, ManifestRef
from tests.shared import samples
from tests.sim.world import World

DAY = 86400.0
BLOBS = [f"blob {at}".encode() for at in range(6)]
RELEASES = ("1.0", "1.1", "1.2")
DEVICES = ("cam-0", "cam-1")
SIGNER = signing.generate()
blobs, releases = st.sampled_from(range(len(BLOBS))), st.sampled_from(RELEASES)
devices = st.sampled_from(DEVICES)


def manifest_of(release: str, engine: int, other: int) -> bytes:
    names = {
        "engine": BLOBS[engine],
        "engine-weights": BLOBS[other],
        "golden-references": b"golden",
    }
    files = tuple(
        FileRef(role=role, name=f"{role}.bin", sha256=sha256_hex(body), length=len(body))  # type: ignore[arg-type]
        for role, body in names.items()
    )
    return wire.encode(
        replace(samples.manifest(), release=release, files=files,
                golden=Golden(references=sha256_hex(b"golden")))
    )  # fmt: skip


class Collection(RuleBasedStateMachine):
    """A data folder that lives; beside it, in the plainest words, what must be there."""

    def __init__(self) -> None:
        super().__init__()
        # In memory: nothing here is about what a disk keeps, and syncing is most of the time.
        memory = Path("/dev/shm")
        self.scratch = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.data = Path(self.scratch.name)
        self.store = ArtifactStore(self.data / "artifacts", 2**20)
        self.engine = connect(self.data / "kedge.db")
        SQLModel.metadata.create_all(self.engine)
        self.version = 0
        self.contents: dict[str, set[str]] = {}  # release → hashes of its build
        self.manifests: dict[str, bytes] = {}
        self.listed: set[str] = set()
        self.rolling: set[str] = set()
        self.under_way: dict[str, str] = {}  # device → release
        self.assigned: dict[str, str] = {}
        self.runs: dict[str, int] = {}  # device → blob
        self.touched: dict[str, float] = {}  # hash → days ago
        with Session(self.engine) as session, session.begin():
            for name in DEVICES:
                session.add(DeviceRow(id=name, device_class="x", key_id="", public_key="",
                                      token_hash=name, facts="{}", enrolled=0))  # fmt: skip

    def teardown(self) -> None:
        self.engine.dispose()
        self.scratch.cleanup()

    def needed(self) -> set[str]:
        releases = self.listed | self.rolling | {*self.under_way.values(), *self.assigned.values()}
        running = {sha256_hex(BLOBS[each]) for each in self.runs.values()}
        found = set(running)
        for release, digests in self.contents.items():
            files = read_manifest(self.manifests[release]).files
            if release in releases or running & {each.sha256 for each in files}:
                found |= digests
        return found & set(self.touched)

    def put(self, body: bytes) -> str:
        digest = self.store.add(body)
        self.touched[digest] = 0
        return digest

    @rule(blob=blobs)
    def upload(self, blob: int) -> None:
        self.put(BLOBS[blob])

    @rule(release=releases, engine=blobs, other=blobs)
    def publish(self, release: str, engine: int, other: int) -> None:
        if release in self.contents:
            return
        body = manifest_of(release, engine, other)
        held = {self.put(each) for each in (BLOBS[engine], BLOBS[other], b"golden", body)}
        self.contents[release], self.manifests[release] = held, body
        with Session(self.engine) as session, session.begin():
            session.add(BuildRow(model="shapes", release=release, device_class="x",
                                 manifest_path=release, manifest_sha256=sha256_hex(body),
                                 manifest_length=len(body), manifest=body))  # fmt: skip
        self.sign(self.listed | {release})

    @rule(release=releases)
    def yank(self, release: str) -> None:
        self.sign(self.listed - {release})

    def sign(self, listed: set[str]) -> None:
        self.listed, self.version = listed, self.version + 1
        signed = Targets(self.version, expires=datetime.now(timezone.utc) + timedelta(days=9))
        for each in listed:
            target = TargetFile.from_data(each, self.manifests[each], ["sha256"])
            signed.targets[each] = target
        with Session(self.engine) as session, session.begin():
            session.add(MetadataRow(role="targets", version=self.version,
                                    body=Metadata(signed).to_bytes()))  # fmt: skip

    @rule(release=releases, state=st.sampled_from(["running", "paused", "halted", "completed"]))
    def roll_out(self, release: str, state: str) -> None:
        if release not in self.contents:
            return
        with Session(self.engine) as session, session.begin():
            session.exec(delete(RolloutRow).where(col(RolloutRow.id) == release))
            session.add(RolloutRow(id=release, model="shapes", release=release, recall=False,
                                   spec="", state=state, reason="", created=0))  # fmt: skip
        (self.rolling.add if state in {"running", "paused"} else self.rolling.discard)(release)

    @rule(release=releases, device=devices, phase=st.sampled_from(["downloading", "confirmed"]))
    def deploy(self, release: str, device: str, phase: str) -> None:
        if release not in self.contents:
            return
        with Session(self.engine) as session, session.begin():
            session.exec(delete(DeploymentRow).where(col(DeploymentRow.device) == device))
            if not session.get(RolloutRow, 999):
                session.add(RolloutRow(order=999, id="ro-x", model="other", release="x",
                                       recall=False, spec="", state="halted", reason="",
                                       created=0))  # fmt: skip
                session.flush()
            session.add(DeploymentRow(id=device, rollout="ro-x", device=device, stage=0,
                                      model="shapes", release=release, phase=phase, verdict="{}",
                                      assigned=1.0, updated=1.0))  # fmt: skip
        self.under_way.pop(device, None)
        if phase == "downloading":
            self.under_way[device] = release

    @rule(release=releases, device=devices)
    def assign(self, release: str, device: str) -> None:
        if release not in self.contents:
            return
        body = self.manifests[release]
        said = Assignment(
            device=device, device_key_id="k", workload="main", deployment="de",
            manifest=ManifestRef(path=release, sha256=sha256_hex(body), length=len(body)),
            intent="install", rollout="ro", stage=0, epoch=1, counter=1, issued=1, expires=2,
        )  # fmt: skip
        envelope = json.dumps(signing.seal(said, ASSIGNMENT_TYPE, SIGNER))
        with Session(self.engine) as session, session.begin():
            session.exec(delete(AssignmentRow).where(col(AssignmentRow.device) == device))
            session.add(AssignmentRow(device=device, deployment="de", intent="install", counter=1,
                                      issued=1, expires=2, envelope=envelope))  # fmt: skip
        self.assigned[device] = release

    @rule(device=devices, blob=blobs)
    def report(self, device: str, blob: int) -> None:
        with Session(self.engine) as session, session.begin():
            row = session.get(DeviceRow, device)
            assert row
            row.engine = sha256_hex(BLOBS[blob])
            session.add(row)
        self.runs[device] = blob

    @rule(blob=blobs)
    def ask(self, blob: int) -> None:
        """A publisher asks whether it must upload."""
        digest = sha256_hex(BLOBS[blob])
        assert self.store.claim(digest) == (digest in self.touched)
        if digest in self.touched:
            self.touched[digest] = 0

    @rule(days=st.sampled_from([0.5, 3, 10]))
    def time_passes(self, days: float) -> None:
        for digest in self.touched:
            self.touched[digest] += days
            at = time.time() - self.touched[digest] * DAY
            os.utime(self.store.path(digest), (at, at))

    @rule(days=st.sampled_from([2, 7]), dry_run=st.booleans())
    def collect(self, days: float, dry_run: bool) -> None:
        needed = self.needed()
        free = {
            each for each, age in self.touched.items() if age > days and each not in needed
        } - self.named_in(needed)
        done = collect(self.data, days * DAY, time.time(), dry_run=dry_run)
        assert set(done.removed) == free
        if not dry_run:
            for each in free:
                del self.touched[each]

    @rule()
    def a_season_passes(self) -> None:
        """Everything is taken back by its owners, and old: only use still speaks for it."""
        self.sign(set())
        self.time_passes(10)
        self.collect(2, False)

    def named_in(self, needed: set[str]) -> set[str]:
        """What a kept manifest names stays with it."""
        return {
            digest
            for release, body in self.manifests.items()
            if sha256_hex(body) in needed
            for digest in self.contents[release]
        }

    @invariant()
    def everything_else_is_there(self) -> None:
        there = {each.name for each in (self.data / "artifacts").glob("??/*")}
        assert there == set(self.touched)


TestCollection = Collection.TestCase
TestCollection.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip


def test_a_publisher_that_asks_in_the_last_moment_keeps_it(tmp_path: Path) -> None:
    """Collection has decided, and before the file loses its name somebody claims it."""
    store = ArtifactStore(tmp_path / "artifacts", 2**20)
    engine = connect(tmp_path / "kedge.db")
    SQLModel.metadata.create_all(engine)
    digest = store.add(b"old")
    os.utime(store.path(digest), (0, 0))

    def claimed(path: Path, scratch: Path) -> None:
        assert store.claim(digest)
        path.rename(scratch)

    done = collect(tmp_path, DAY, time.time(), dry_run=False, aside=claimed)
    assert done.removed == {}
    assert store.has(digest)
    engine.dispose()


def test_a_collection_that_was_killed_is_undone_by_the_next(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts", 2**20)
    engine = connect(tmp_path / "kedge.db")
    SQLModel.metadata.create_all(engine)
    digest = store.add(b"old")

    class Killed(Exception):
        pass

    def killed(path: Path, scratch: Path) -> None:
        path.rename(scratch)
        raise Killed

    os.utime(store.path(digest), (0, 0))
    with pytest.raises(Killed):
        collect(tmp_path, DAY, time.time(), dry_run=False, aside=killed)
    assert not store.has(digest)
    collect(tmp_path, DAY, time.time(), dry_run=True)
    assert store.has(digest)
    engine.dispose()


def test_the_command_beside_a_running_server(running: World) -> None:
    """A release that was taken back goes; the other one, its policy and golden frame stay."""
    first = running.publish("1.0", 10)
    running.publish("1.1", 11)
    stray = running.context.store.add(b"uploaded, never published")
    for each in (running.home / "server" / "artifacts").glob("??/*"):
        os.utime(each, (0, 0))
    arguments = ["collect", "--data", str(running.home / "server"), "--json"]

    def run(*options: str) -> Collected:
        output = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False).output
        return wire.decode(output.encode(), Collected, "output")

    assert set(run("--dry-run").removed) == {stray}
    assert running.context.store.has(stray)
    assert set(run().removed) == {stray}
    assert run().removed == {}
    made = first / "x86-onnxruntime"
    for path in set(made.iterdir()) - {made / "provenance.json"}:  # the signed one goes up
        assert running.context.store.has(sha256_hex(path.read_bytes())), path.name
    assert [each.action for each in audit(running)].count("collect") == 1


def audit(running: World) -> list[AuditRow]:
    with Session(running.context.engine) as session:
        return list(session.exec(select(AuditRow)).all())
