"""Attacks of the Uptane standard, with the keys of every role stolen in turn.

docs/security.md names a test for each; here stand those that need no server.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from kedge_agent import downloads
from kedge_shared import signing, wire
from kedge_shared.errors import KedgeError, ServiceError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.policy import policy_path
from kedge_shared.protocol import REPORT_TYPE
from kedge_shared.trust import DIRECTOR_PATH
from tests.trust.device import ENGINE, Device, Fleet
from tests.trust.repository import URL, soon

EVIL = b"evil engine " * 9


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(downloads, "backoff_seconds", lambda _: 0.0)
    return Fleet()


@pytest.fixture
def device(fleet: Fleet, tmp_path: Path) -> Device:
    return Device(fleet, tmp_path / "device")


def refuses(device: Device, envelope: dict[str, object], code: str = "") -> None:
    """The board throws it out, and no byte of it is among its blobs."""
    with pytest.raises(KedgeError) as caught:
        device.take(envelope)
    if code:
        assert isinstance(caught.value, TrustError), caught.value
        assert caught.value.code == code, caught.value
    assert not device.store.has(sha256_hex(EVIL))


def evil_release(fleet: Fleet, release: str = "6.6") -> tuple[str, bytes]:
    """A manifest of the attacker's engine, and where it claims to lie."""
    engine, references = fleet.manifest().files
    files = (replace(engine, sha256=sha256_hex(EVIL), length=len(EVIL)), references)
    manifest = replace(fleet.manifest(release, 66), files=files)
    fleet.artifacts[sha256_hex(EVIL)] = EVIL
    return manifest.target_path, wire.encode(manifest)


def test_the_honest_release_is_taken(fleet: Fleet, device: Device) -> None:
    """What follows is refused for its own reason and no other."""
    assert device.take(fleet.assign()).engine == sha256_hex(ENGINE)


def test_metadata_of_two_moments_is_not_mixed(fleet: Fleet, device: Device) -> None:
    old = fleet.repository.files[f"{URL}{fleet.repository.targets['shapes'].version}.shapes.json"]
    fleet.release("1.1", 11)
    version = fleet.repository.targets["shapes"].version
    fleet.repository.files[f"{URL}{version}.shapes.json"] = old
    refuses(device, fleet.assign(), "metadata")


def test_a_manifest_under_anothers_path_is_not_taken(fleet: Fleet, device: Device) -> None:
    path = fleet.manifest("1.1", 11).target_path
    ref = fleet.put("shapes", path, wire.encode(fleet.manifest("1.0", 10)))
    refuses(device, fleet.assign(ref), "mix")


def test_a_policy_of_another_model_is_not_taken(fleet: Fleet, device: Device) -> None:
    other = replace(fleet.policy(), model="other")
    fleet.repository.add("shapes", policy_path("shapes"), wire.encode(other))
    fleet.repository.publish("shapes")
    refuses(device, fleet.assign(), "mix")


def test_older_metadata_is_not_taken_again(fleet: Fleet, device: Device) -> None:
    old = dict(fleet.repository.files)
    fleet.release("1.1", 11)
    device.take(fleet.assign())
    fleet.repository.files.update(old)
    refuses(device, fleet.assign(), "metadata")


def test_an_endless_manifest_ends(fleet: Fleet, device: Device) -> None:
    for url in list(fleet.repository.files):
        if url.endswith(".manifest.json"):
            fleet.repository.files[url] += b" " * 10_000_000
    with pytest.raises(ServiceError, match="maximum allowed"):
        device.take(fleet.assign())


def test_a_signed_manifest_over_the_limit_is_not_even_fetched(fleet: Fleet, device: Device) -> None:
    fleet.put("shapes", fleet.ref.path, bytes(1001))
    device.repository.refresh(time.time())
    with pytest.raises(TrustError, match="larger than 1000 bytes"):
        device.repository.fetch(fleet.ref.path, 1000, device.store.root)
    assert not device.store.has(fleet.ref.sha256)


def test_an_endless_artifact_ends(fleet: Fleet, device: Device) -> None:
    fleet.artifacts[sha256_hex(ENGINE)] = ENGINE + bytes(10_000_000)
    refuses(device, fleet.assign(), "length")


@pytest.mark.parametrize("what", ["engine", "references", "frame"])
def test_a_partial_bundle_is_not_installed(fleet: Fleet, device: Device, what: str) -> None:
    engine, references = fleet.manifest().files
    frame = fleet.policy().golden[0]
    missing = {"engine": engine, "references": references, "frame": frame}[what]
    del fleet.artifacts[missing.sha256]
    with pytest.raises(ServiceError, match="404"):
        device.take(fleet.assign())


def test_a_release_without_its_policy_is_not_installed(fleet: Fleet, device: Device) -> None:
    del fleet.repository.targets["shapes"].targets[policy_path("shapes")]
    fleet.repository.publish("shapes")
    refuses(device, fleet.assign(), "unlisted")


def test_one_stolen_root_key_of_two_changes_nothing(fleet: Fleet, device: Device) -> None:
    repository = fleet.repository
    first, second = repository.signers["root"], signing.generate()
    repository.root.add_key(second.public_key, "root")
    repository.root.roles["root"].threshold = 2
    repository.publish_root(signers=[first, second])
    device.take(fleet.assign())
    mine = signing.generate()
    repository.root.add_key(mine.public_key, "targets")
    repository.publish_root(signers=[first, first])
    refuses(device, fleet.assign(), "metadata")


def test_a_stolen_root_key_is_worth_nothing_after_its_rotation(
    fleet: Fleet, device: Device
) -> None:
    repository = fleet.repository
    stolen, fresh = repository.signers["root"], signing.generate()
    repository.root.revoke_key(stolen.public_key.keyid, "root")
    repository.root.add_key(fresh.public_key, "root")
    repository.publish_root(signers=[stolen, fresh])
    device.take(fleet.assign())
    repository.publish_root(signers=[stolen])
    refuses(device, fleet.assign(), "metadata")


def test_a_stolen_targets_key_alone_brings_nothing(fleet: Fleet, device: Device) -> None:
    """Neither snapshot nor director speaks of what it signs."""
    path, body = evil_release(fleet)
    taken = dict(fleet.repository.files)
    ref = fleet.put("targets", path, body)
    kept = {"timestamp.json", f"{fleet.repository.snapshot.version - 1}.snapshot.json"}
    fleet.repository.files.update({u: b for u, b in taken.items() if u.removeprefix(URL) in kept})
    refuses(device, fleet.assign(ref), "unlisted")


def test_a_taken_over_image_repository_brings_nothing_without_the_director(
    fleet: Fleet, device: Device
) -> None:
    """The model's, snapshot's and timestamp's keys: the director's assignment names other bytes."""
    honest = fleet.assign()
    path, body = evil_release(fleet, "1.0")
    assert path == fleet.ref.path
    fleet.put("shapes", path, body)
    with pytest.raises(TrustError, match="disagree"):
        device.take(honest)
    assert not device.store.has(sha256_hex(EVIL))


def test_a_stolen_key_of_a_delegation_reaches_its_own_model_only(
    fleet: Fleet, device: Device
) -> None:
    path, body = evil_release(fleet)
    ref = fleet.put("shapes", path.replace("/shapes/", "/faces/"), body)
    refuses(device, fleet.assign(ref), "unlisted")
    mine = signing.generate()
    fleet.repository.add("shapes", DIRECTOR_PATH, wire.encode(signing.key_to_dict(mine.public_key)))
    fleet.repository.publish("shapes")
    refuses(device, fleet.assign(signer=mine), "signature")


def test_a_revoked_key_of_a_delegation_signs_nothing_more(fleet: Fleet, device: Device) -> None:
    repository = fleet.repository
    device.take(fleet.assign())
    stolen, fresh = repository.role_signers["shapes"][0], signing.generate()
    repository.targets["targets"].revoke_key(stolen.public_key.keyid, "shapes")
    repository.targets["targets"].add_key(fresh.public_key, "shapes")
    path, body = evil_release(fleet)
    ref = fleet.put("shapes", path, body)
    refuses(device, fleet.assign(ref), "metadata")


def test_a_stolen_snapshot_key_alone_brings_nothing(fleet: Fleet, device: Device) -> None:
    repository = fleet.repository
    version = repository.snapshot.version
    del repository.snapshot.meta["shapes.json"]
    repository.put(f"{version}.snapshot", repository.snapshot, [signing.generate()])
    refuses(device, fleet.assign(), "metadata")


@pytest.mark.parametrize("role", ["targets", "shapes"])
def test_stolen_snapshot_and_timestamp_keys_take_nothing_back(
    fleet: Fleet, device: Device, role: str
) -> None:
    """They can withhold what is new, until it expires; they cannot go back or bring anything."""
    fleet.release("1.1", 11)
    device.take(fleet.assign())
    repository = fleet.repository
    repository.snapshot.meta[f"{role}.json"].version -= 1
    repository.snapshot.version += 1
    repository.put(
        f"{repository.snapshot.version}.snapshot", repository.snapshot,
        [repository.signers["snapshot"]],
    )  # fmt: skip
    repository.stamp()
    refuses(device, fleet.assign(), "metadata")


def test_a_stolen_timestamp_key_alone_takes_nothing_back(fleet: Fleet, device: Device) -> None:
    fleet.release("1.1", 11)
    device.take(fleet.assign())
    fleet.repository.snapshot.version -= 1
    fleet.repository.stamp()
    refuses(device, fleet.assign(), "metadata")


def test_a_stolen_timestamp_key_cannot_outlive_the_other_roles(
    fleet: Fleet, device: Device
) -> None:
    repository = fleet.repository
    repository.targets["shapes"].expires = soon(-1)
    repository.publish("shapes")
    refuses(device, fleet.assign(), "expired")


def test_a_stolen_director_key_brings_nothing_that_was_not_signed(
    fleet: Fleet, device: Device
) -> None:
    path, body = evil_release(fleet)
    ref = replace(fleet.ref, path=path, sha256=sha256_hex(body), length=len(body))
    refuses(device, fleet.assign(ref), "unlisted")


def test_a_stolen_director_key_can_choose_among_releases_above_the_floor(
    fleet: Fleet, device: Device
) -> None:
    """What is not promised, so that nobody believes it is."""
    old = fleet.ref
    fleet.release("1.1", 11)
    device.take(fleet.assign())
    assert device.take(fleet.assign(old)).release == "1.0"
    floor = replace(fleet.policy(), min_release_counter=11)
    fleet.repository.add("shapes", policy_path("shapes"), wire.encode(floor))
    fleet.repository.publish("shapes")
    refuses(device, fleet.assign(old), "rollback")


def test_a_stolen_director_key_is_worth_nothing_after_its_rotation(
    fleet: Fleet, device: Device
) -> None:
    device.take(fleet.assign())
    fleet.announce(signing.generate(), epoch=2)
    refuses(device, fleet.assign(epoch=2), "signature")


def test_a_stolen_device_key_assigns_nothing(fleet: Fleet, device: Device) -> None:
    own = signing.generate()
    refuses(device, fleet.assign(signer=own), "signature")
    report = signing.seal(fleet.assignment(), REPORT_TYPE, fleet.director)
    refuses(device, report, "type")


def test_a_release_that_was_taken_back_is_not_installed(fleet: Fleet, device: Device) -> None:
    """Yanked: no longer among the targets."""
    del fleet.repository.targets["shapes"].targets[fleet.ref.path]
    fleet.repository.publish("shapes")
    refuses(device, fleet.assign(), "unlisted")
