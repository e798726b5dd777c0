"""Publication: what the server takes, what publishers and boards can verify of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import httpx
import pytest
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.ngclient import Updater

from kedge_builder.publishing.publish import gather
from kedge_builder.publishing.rotation import Standing, add_targets, next_of
from kedge_shared import signing, wire
from kedge_shared.errors import InputError, ServiceError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.tuf_fetcher import HttpxFetcher
from tests.sim.world import World, write_build


def targets_key(world: World) -> signing.CryptoSigner:
    return signing.load_private_key(world.trust.offline / "targets.key")


def offer(world: World, metadata: Metadata[Targets]) -> httpx.Response:
    return world.operator.http.post(
        "/api/v1/repository/metadata", json={"targets": metadata.to_bytes().decode()}
    )


def current(world: World) -> Standing:
    return world.publisher("fresh").standing()


def next_targets(
    base: Standing, added: Mapping[str, bytes], signer: signing.CryptoSigner
) -> Metadata[Targets]:
    following = next_of(base, "targets", datetime.now(timezone.utc))
    add_targets(following, added)
    following.sign(signer)
    return following


def versions(world: World) -> tuple[int, int]:
    state = world.operator.repository()
    return state.targets, state.timestamp


def test_a_board_verifies_what_was_published_from_the_pinned_root(
    running: World, tmp_path: Path
) -> None:
    folder = running.publish("1.0", 10)
    device = running.enrol("cam-1")
    client = Updater(
        metadata_dir=str(tmp_path / "tuf"), metadata_base_url=f"{running.url}/tuf/metadata/",
        target_dir=str(tmp_path / "got"), target_base_url=f"{running.url}/tuf/targets/",
        fetcher=HttpxFetcher(device.http), bootstrap=running.trust.root.read_bytes(),
    )  # fmt: skip
    (tmp_path / "got").mkdir()
    client.refresh()
    info = client.get_targetinfo("models/shapes/1.0/x86-onnxruntime/manifest.json")
    assert info is not None
    got = Path(client.download_target(info))
    assert got.read_bytes() == (folder / "x86-onnxruntime" / "manifest.json").read_bytes()


def test_releases_say_what_was_overridden(running: World) -> None:
    running.publish("1.0", 10, override="larger input on trial")
    (release,) = running.operator.releases()
    assert release.builds[0].overrides == ("latency_p95_ms: larger input on trial",)


def test_targets_of_another_key_are_refused(running: World) -> None:
    forged = next_targets(current(running), {}, signing.generate())
    answer = offer(running, forged)
    assert answer.status_code == 400
    assert "not signed as root demands" in answer.json()["error"]
    assert versions(running)[0] == 1


def test_somebody_published_in_between(running: World) -> None:
    base = current(running)
    running.publish("1.0", 10)
    late = next_targets(base, {}, targets_key(running))
    answer = offer(running, late)
    assert answer.status_code == 412
    assert "publish again" in answer.json()["mend"]


def test_versions_only_grow(running: World) -> None:
    running.publish("1.0", 10)
    back = next_targets(current(running), {}, targets_key(running))
    back.signed.version -= 1
    back.sign(targets_key(running))
    assert offer(running, back).status_code == 412


def test_targets_whose_files_are_missing_are_refused_whole(running: World) -> None:
    body = b"{}"
    offered = next_targets(
        current(running), {"models/x/1/y/manifest.json": body}, targets_key(running)
    )
    answer = offer(running, offered)
    assert answer.status_code == 400
    assert "was not uploaded" in answer.json()["error"]
    assert running.operator.releases() == []
    assert versions(running)[0] == 1


def test_a_manifest_must_lie_where_it_says(running: World) -> None:
    folder = write_build(running.home / "b", "1.0", 10)
    bundle = gather([folder])
    (path,) = [each for each in bundle.targets if each.endswith("manifest.json")]
    bundle.targets[path.replace("1.0", "6.6")] = bundle.targets.pop(path)
    for data in bundle.targets.values():
        running.operator.http.put(f"/api/v1/artifacts/{sha256_hex(data)}", content=data)
    for digest, file in bundle.files.items():
        running.operator.upload(file, digest, lambda _: None)
    answer = offer(running, next_targets(current(running), bundle.targets, targets_key(running)))
    assert answer.status_code == 400
    assert "lies at" in answer.json()["error"]


def test_a_release_never_changes(running: World) -> None:
    running.publish("1.0", 10)
    changed = write_build(running.home / "again", "1.0", 10, engine=b"other" * 100)
    with pytest.raises(InputError, match="published with other contents"):
        running.publish_folder(changed)


def test_publishing_the_same_again_is_no_error(running: World) -> None:
    folder = running.publish("1.0", 10)
    running.publish_folder(folder)
    assert len(running.operator.releases()) == 1


def test_an_altered_file_is_not_published(running: World) -> None:
    folder = write_build(running.home / "b", "1.0", 10)
    engine = folder / "x86-onnxruntime" / "model.onnx"
    body = bytearray(engine.read_bytes())
    body[100] ^= 1
    engine.write_bytes(body)
    with pytest.raises(InputError, match="not the file its manifest describes"):
        gather([folder])


def test_a_publisher_refuses_a_server_of_another_repository(running: World, tmp_path: Path) -> None:
    from kedge_builder.publishing import keys
    from kedge_builder.publishing.repository import TrustedState

    other = keys.create(tmp_path / "other")
    state = TrustedState(tmp_path / "state", other.root, running.url, running.operator.http)
    with pytest.raises(TrustError, match="not to be trusted"):
        state.standing()


def test_a_publisher_refuses_a_server_that_goes_back(running: World, tmp_path: Path) -> None:
    running.publish("1.0", 10)
    publisher = running.publisher()
    publisher.standing()
    # What the publisher has seen is newer than what a restored or hostile server offers.
    path = publisher.folder / "timestamp.json"
    newer = Metadata.from_file(str(path))
    newer.signed.version += 5
    newer.sign(signing.load_private_key(running.trust.online / "timestamp.key"))
    newer.to_file(str(path))
    with pytest.raises(TrustError, match="not to be trusted"):
        running.publisher().standing()


def test_an_undecided_build_needs_the_policys_leave(running: World) -> None:
    from dataclasses import replace

    folder = write_build(running.home / "b", "1.0", 10)
    at = folder / "x86-onnxruntime" / "manifest.json"
    from kedge_shared.manifest import read_manifest

    at.write_bytes(wire.encode_pretty(replace(read_manifest(at.read_bytes()), verdict="undecided")))
    with pytest.raises(InputError, match="undecided"):
        gather([folder])


def test_targets_have_a_limit_and_are_no_junk(running: World) -> None:
    post = running.operator.http.post
    url = "/api/v1/repository/metadata"
    assert post(url, content=b"x" * 6_000_000).status_code == 413
    assert post(url, content=b"not json").status_code == 400
    assert post(url, json={"targets": "not json"}).status_code == 400
    assert post(url, content=current(running).targets.to_bytes()).status_code == 400


def test_upload_says_what_is_wrong_when_the_server_is_gone(tmp_path: Path) -> None:
    from kedge_shared.client import Client

    with Client("http://127.0.0.1:9", "token") as client, pytest.raises(ServiceError) as refused:
        client.releases()
    assert "does not answer" in str(refused.value)


def test_timestamps_are_renewed_before_they_expire(running: World) -> None:
    from datetime import datetime, timedelta, timezone

    from kedge_server.database import transaction

    _, before = versions(running)
    now = datetime.now(timezone.utc)
    with transaction(running.context.engine) as session:
        assert not running.context.repository.renew(session, now + timedelta(hours=11))
        assert running.context.repository.renew(session, now + timedelta(hours=13))
    assert versions(running)[1] > before
    served = running.enrol("c").http.get("/tuf/metadata/timestamp.json").content
    assert json.loads(served)["signed"]["version"] == versions(running)[1]


def test_target_files_of_a_foreign_hash_are_refused(running: World) -> None:
    base = current(running)
    following = next_targets(base, {}, targets_key(running))
    following.signed.targets["models/x/1/y/manifest.json"] = TargetFile(
        2, {"sha512": "a" * 128}, "models/x/1/y/manifest.json"
    )
    following.sign(targets_key(running))
    assert offer(running, following).status_code == 400
