"""Keys changed while a fleet runs: rotated, revoked, given to a model's team."""

from __future__ import annotations

import shutil
import time

import pytest
from tuf.api.metadata import TargetFile, Targets

from kedge_builder.publishing.keyring import Keyring
from kedge_builder.publishing.publish import gather, sign_release
from kedge_builder.publishing.rotation import Change, change, next_of
from kedge_server.repository.signers import load_keys
from kedge_shared import signing
from kedge_shared.errors import InputError, ServiceError, TrustError
from tests.server.fleet_keys import (
    MANIFEST,
    ROLE,
    Enrol,
    file_key,
    give_to_team,
    replace_key,
)
from tests.sim.world import World, write_build


@pytest.mark.parametrize("role", ["root", "targets"])
def test_a_rotated_offline_key_is_believed_and_the_old_one_no_more(
    running: World, enrol: Enrol, ring: Keyring, role: str
) -> None:
    running.publish("1.0", 10)
    known = enrol("cam-1")
    known.refresh(time.time())
    fresh, signed = replace_key(running, role, ring)
    running.operator.publish_metadata(signed)
    known.refresh(time.time())
    enrol("cam-2").refresh(time.time())
    with pytest.raises(InputError, match="1 of 1 key|none of the keys"):
        if role == "root":
            replace_key(running, role, Keyring.load(running.trust.offline))
        running.publish("1.1", 11)
    file_key(running, fresh, f"{role}-new")
    running.publish("1.1", 11)
    known.refresh(time.time())
    assert known.find(MANIFEST.format("1.1"))
    assert known.find(MANIFEST.format("1.0"))


def test_old_targets_keys_publish_nothing_after_their_revocation(
    running: World, ring: Keyring
) -> None:
    standing = running.publisher().standing()
    _, signed = replace_key(running, "targets", ring)
    running.operator.publish_metadata(signed)
    stale = running.publisher("fresh").standing().targets
    stale.signed.version += 1
    stale.sign(signing.load_private_key(running.trust.offline / "targets.key"))
    with pytest.raises(ServiceError, match="not signed as root demands"):
        running.operator.publish_metadata({"targets": stale.to_bytes()})
    assert running.operator.repository().root == standing.root.signed.version + 1


@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
def test_an_online_key_is_rotated_once_the_server_holds_the_new_one(
    running: World, enrol: Enrol, ring: Keyring, role: str
) -> None:
    known = enrol("cam-1")
    known.refresh(time.time())
    fresh, signed = replace_key(running, role, ring)
    with pytest.raises(ServiceError, match="does not hold"):
        running.operator.publish_metadata(signed)
    signing.save_private_key(fresh, running.trust.online / f"{role}-new.key")
    running.context.repository._keys = load_keys(running.trust.online.parent)  # a restart
    running.operator.publish_metadata(signed)
    known.refresh(time.time())
    assert running.operator.repository().root == 2


def test_a_new_root_needs_the_old_ones_word(running: World) -> None:
    mine = signing.generate()
    standing = running.publisher().standing()
    what = Change("root", add=[mine.public_key], remove=standing.role("root").keyids)
    with pytest.raises(InputError, match="root takes 1 of 1"):
        change(standing, what, Keyring({mine.public_key.keyid: mine}))
    standing.root.signed.roles["root"].keyids = [mine.public_key.keyid]
    standing.root.signed.keys[mine.public_key.keyid] = mine.public_key
    forged = change(standing, Change("root"), Keyring({mine.public_key.keyid: mine}))
    with pytest.raises(ServiceError, match="not signed as the root before it demands"):
        running.operator.publish_metadata(forged)


def test_a_threshold_takes_as_many_keys(running: World, enrol: Enrol, ring: Keyring) -> None:
    second = signing.generate()
    ring.add(second)
    what = Change("targets", add=[second.public_key], threshold=2)
    running.operator.publish_metadata(change(running.publisher().standing(), what, ring))
    with pytest.raises(InputError, match="targets takes 2 of 2"):
        running.publish("1.0", 10)
    file_key(running, second, "targets-second")
    running.publish("1.0", 10)
    known = enrol("cam-1")
    known.refresh(time.time())
    assert known.find(MANIFEST.format("1.0"))
    with pytest.raises(InputError, match="would have 1"):
        revoked = Change("targets", remove=[second.public_key.keyid])
        change(running.publisher().standing(), revoked, ring)


def test_a_models_team_publishes_with_its_own_key(
    running: World, enrol: Enrol, ring: Keyring
) -> None:
    running.publish("1.0", 10)
    known = enrol("cam-1")
    known.refresh(time.time())
    team = give_to_team(running, ring)
    shutil.move(running.trust.offline, running.home / "locked-away")
    running.trust.offline.mkdir()
    file_key(running, team, ROLE)
    running.publish("1.1", 11)
    known.refresh(time.time())
    assert known.find(MANIFEST.format("1.1"))
    assert known.find(MANIFEST.format("1.0")), "what was listed before moved to the team's role"
    assert [each.release for each in running.operator.releases()] == ["1.1", "1.0"]
    assert running.operator.repository().models == {ROLE: 2}
    device = running.enrol("cam-a")
    running.roll_out("1.1")
    device.live()
    assert device.runs == MANIFEST.format("1.1")


def test_a_team_lists_nothing_but_its_model(running: World, ring: Keyring) -> None:
    team = give_to_team(running, ring)
    standing = running.publisher().standing()
    own = next_of(standing, ROLE, Change(ROLE).now)
    own.signed.targets["director.json"] = TargetFile.from_data("director.json", b"{}", ["sha256"])
    own.sign(team)
    with pytest.raises(ServiceError, match="may not list director.json"):
        running.operator.publish_metadata({ROLE: own.to_bytes()})


def test_a_team_whose_key_was_revoked_publishes_nothing(
    running: World, enrol: Enrol, ring: Keyring
) -> None:
    team = give_to_team(running, ring)
    fresh, signed = replace_key(running, ROLE, ring)
    running.operator.publish_metadata(signed)
    bundle = gather([write_build(running.home / "b", "1.0", 10)])
    standing = running.publisher().standing()
    with pytest.raises(InputError, match="1 of 1 key"):
        sign_release(standing, bundle, Keyring({team.public_key.keyid: team}))
    known = enrol("cam-1")
    known.refresh(time.time())
    with pytest.raises(TrustError, match="not among"):
        known.find(MANIFEST.format("1.0"))
    file_key(running, fresh, ROLE)
    running.publish("1.0", 10)
    known.refresh(time.time())
    assert known.find(MANIFEST.format("1.0"))


def test_nobody_lists_under_a_role_that_is_not_delegated(running: World) -> None:
    mine = signing.generate()
    own = next_of(running.publisher().standing(), ROLE, Change(ROLE).now)
    assert isinstance(own.signed, Targets)
    own.sign(mine)
    for role in (ROLE, "snapshot", "../root"):
        with pytest.raises(ServiceError, match="not delegated|no role"):
            running.operator.publish_metadata({role: own.to_bytes()})


def test_somebody_signed_in_between(running: World, ring: Keyring) -> None:
    _, first = replace_key(running, "targets", ring)
    _, late = replace_key(running, "targets", ring)
    running.operator.publish_metadata(first)
    with pytest.raises(ServiceError) as refused:
        running.operator.publish_metadata(late)
    assert refused.value.status == 412
