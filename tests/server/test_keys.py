"""Keys changed while a fleet runs: rotated, revoked, given to a model's team."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import typer
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile, Targets
from typer.testing import CliRunner

from kedge_agent.tuf_client import ImageRepository
from kedge_builder.publishing.cli import keys, yank
from kedge_builder.publishing.keyring import Keyring
from kedge_builder.publishing.publish import gather, sign_release
from kedge_builder.publishing.rotation import Change, change, delegate, next_of
from kedge_server import scheduler
from kedge_server.devices.assignments import Director
from kedge_server.repository.signers import load_keys
from kedge_shared import signing, wire
from kedge_shared.errors import InputError, ServiceError, TrustError
from kedge_shared.trust import model_role
from tests.sim.world import TOKEN, World, serve, write_build

ROLE = model_role("shapes")
MANIFEST = "models/shapes/{}/x86-onnxruntime/manifest.json"


@pytest.fixture
def ring(running: World) -> Keyring:
    return Keyring.load(running.trust.offline)


Enrol = Callable[[str], ImageRepository]


@pytest.fixture
def enrol(running: World, tmp_path: Path) -> Iterator[Enrol]:
    """Makes boards' views of the image repository."""
    with ExitStack() as opened:

        def make(name: str) -> ImageRepository:
            token = running.enrol(name).http.headers["Authorization"].split()[1]
            found = ImageRepository(running.url, token, tmp_path / name, running.trust.root)
            opened.callback(found.close)
            return found

        yield make


def replace_key(world: World, role: str, ring: Keyring) -> tuple[CryptoSigner, dict[str, bytes]]:
    """Signs, but does not publish yet, another key for a role."""
    fresh, standing = signing.generate(), world.publisher().standing()
    ring.add(fresh)
    what = Change(role, add=[fresh.public_key], remove=standing.role(role).keyids)
    return fresh, change(standing, what, ring)


def give_to_team(world: World, ring: Keyring) -> CryptoSigner:
    team = signing.generate()
    ring.add(team)
    signed = delegate(world.publisher().standing(), "shapes", team.public_key, ring)
    world.operator.publish_metadata(signed)
    return team


def file_key(world: World, signer: CryptoSigner, name: str) -> None:
    signing.save_private_key(signer, world.trust.offline / f"{name}.key")


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
    with pytest.raises(InputError, match="1 of 1 key"):
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


app = typer.Typer()
app.add_typer(keys, name="keys")
app.command()(yank)


def kedge(world: World, *arguments: str) -> str:
    """Runs ``kedge keys …`` or ``kedge yank`` as a person would; returns what it prints."""
    os.environ |= {"KEDGE_TOKEN": TOKEN, "KEDGE_SERVER": world.url}
    keys_folder = str(world.trust.offline.parent)
    before = [] if arguments[0] == "yank" else ["keys"]
    wants_keys = [] if arguments[0] == "token" else ["--keys", keys_folder]
    try:
        result = CliRunner().invoke(app, [*before, *arguments, *wants_keys])
    finally:
        del os.environ["KEDGE_TOKEN"], os.environ["KEDGE_SERVER"]
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_the_commands_from_the_first_key_to_the_last(
    running: World, enrol: Enrol, tmp_path: Path
) -> None:
    running.publish("1.0", 10)
    known = enrol("cam-1")
    kedge(running, "rotate", "root")
    kedge(running, "rotate", "targets")
    kedge(running, "delegate", "shapes")
    kedge(running, "rotate", ROLE)
    second = signing.generate()
    (tmp_path / "second.pub").write_bytes(wire.encode(signing.key_to_dict(second.public_key)))
    kedge(running, "add", ROLE, "--key", str(tmp_path / "second.pub"))
    roles = {each["role"]: each for each in json.loads(kedge(running, "list", "--json"))}
    assert {role: each["version"] for role, each in roles.items() if each["version"]} == {
        "root": 3, "targets": 6, ROLE: 3,
    }  # fmt: skip
    assert sorted(roles[ROLE]["keys"].values()) == [False, True]
    assert second.public_key.keyid[:12] in kedge(running, "list")
    kedge(running, "revoke", ROLE, second.public_key.keyid[:6])
    running.publish("1.1", 11)
    known.refresh(time.time())
    assert known.find(MANIFEST.format("1.1"))
    with pytest.raises(InputError, match="delegated already"):
        kedge(running, "delegate", "shapes")
    with pytest.raises(InputError, match="no role"):
        kedge(running, "rotate", "model-none")


def test_an_online_rotation_goes_on_when_the_server_has_the_key(running: World) -> None:
    for _ in range(2):
        with pytest.raises(ServiceError, match="copy the new key"):
            kedge(running, "rotate", "timestamp")
    assert len(list(running.trust.online.glob("timestamp-*.key"))) == 1
    running.context.repository._keys = load_keys(running.trust.online.parent)  # a restart
    kedge(running, "rotate", "timestamp")
    running.publish("1.0", 10)


def test_keys_may_come_from_the_environment(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = running.trust.offline / "targets.key"
    monkeypatch.setenv("KEDGE_SIGNING_KEYS", path.read_text())
    path.unlink()
    running.publish("1.0", 10)


SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")


def test_a_key_in_a_pkcs11_token_signs(
    running: World, enrol: Enrol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pkcs11", reason="pip install 'kedge[pkcs11]'")
    if not SOFTHSM.exists():
        pytest.skip("SoftHSM is not installed (apt-get install softhsm2)")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm.conf"))
    monkeypatch.setenv("PYKCS11LIB", str(SOFTHSM))
    monkeypatch.setenv("KEDGE_HSM_PIN", "1234")
    make_token_key()
    described = running.trust.offline / "targets.signer.json"
    kedge(running, "token", "--out", str(described), "--label", "kedge")
    kedge(running, "add", "targets", "--key", str(described))
    old = signing.load_private_key(running.trust.offline / "targets.key").public_key.keyid
    kedge(running, "revoke", "targets", old)
    (running.trust.offline / "targets.key").unlink()
    running.publish("1.0", 10)
    known = enrol("cam-1")
    known.refresh(time.time())
    assert known.find(MANIFEST.format("1.0"))
    monkeypatch.setenv("KEDGE_HSM_PIN", "9999")
    with pytest.raises(InputError, match="KEDGE_HSM_PIN"):
        running.publish("1.1", 11)


def make_token_key() -> None:
    """An ECDSA key pair with id 2, in a process of its own: the library reads its settings once."""
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "kedge", "--pin", "1234",
         "--so-pin", "1234"], check=True, capture_output=True,
    )  # fmt: skip
    code = """
import os, pkcs11
from pkcs11.util.ec import encode_named_curve_parameters
token = pkcs11.lib(os.environ["PYKCS11LIB"]).get_token(token_label="kedge")
with token.open(rw=True, user_pin="1234") as session:
    curve = session.create_domain_parameters(
        pkcs11.KeyType.EC,
        {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True)
    curve.generate_keypair(store=True, id=bytes([2]), label="kedge")
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_rotated_director_assigns_and_the_old_one_no_more(
    running: World, enrol: Enrol, tmp_path: Path
) -> None:
    running.publish("1.0", 10)
    device = running.enrol("cam-a")
    running.roll_out("1.0")
    device.poll()
    before, known = device.assignment, enrol("cam-1")
    with pytest.raises(ServiceError, match="copy the new key"):
        kedge(running, "rotate", "director")
    director = running.context.director  # a restart:
    fresh = Director(load_keys(running.trust.online.parent).directors, director._life)
    director._signers = fresh._signers
    kedge(running, "rotate", "director")
    known.refresh(time.time())
    named = known.director(tmp_path / "blobs")
    assert named.epoch == 2
    device.poll()  # it opens with the key in director.json, which the command has replaced
    assert before is not None
    assert device.assignment is not None
    assert device.assignment.epoch == 2
    assert device.assignment.counter > before.counter
    assert device.assignment.manifest == before.manifest
    running.context.engine.dispose()
    with serve(running.home, running.trust) as (context, _):
        assert context.director._epoch == 2, "and after a restart"


def test_a_release_that_is_taken_back_leaves_the_fleet(running: World, enrol: Enrol) -> None:
    running.publish("1.0", 10)
    device = running.enrol("cam-a")
    running.roll_out("1.0")
    device.live()
    running.tick()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    device.live()
    assert device.runs == MANIFEST.format("1.1")
    kedge(running, "yank", "shapes", "1.1")
    device.live()
    assert device.runs == MANIFEST.format("1.0"), "back to the newest rollout that stands"
    assert device.assignment is not None
    assert device.assignment.intent == "revert"
    assert "taken back by its owners" in running.operator.rollouts()[0].reason
    shown = {each.release: each.taken_back for each in running.operator.releases()}
    assert shown == {"1.0": False, "1.1": True}
    assert running.operator.release("shapes", "1.1").taken_back
    known = enrol("cam-1")
    known.refresh(time.time())
    with pytest.raises(TrustError, match="not among"):
        known.find(MANIFEST.format("1.1"))
    with pytest.raises(ServiceError, match="taken back by its owners"):
        running.roll_out("1.1")
    with pytest.raises(InputError, match="not listed"):
        kedge(running, "yank", "shapes", "1.1")


def test_a_team_takes_its_own_release_back(running: World, ring: Keyring, enrol: Enrol) -> None:
    running.publish("1.0", 10)
    team = give_to_team(running, ring)
    (running.trust.offline / "targets.key").unlink()
    file_key(running, team, ROLE)
    kedge(running, "yank", "shapes", "1.0")
    known = enrol("cam-1")
    known.refresh(time.time())
    with pytest.raises(TrustError, match="not among"):
        known.find(MANIFEST.format("1.0"))


def test_a_server_restored_from_before_rotations_is_given_them_again(
    running: World, enrol: Enrol
) -> None:
    running.publish("1.0", 10)
    known = enrol("cam-1")
    running.context.engine.dispose()
    shutil.copytree(running.home / "server", running.home / "backup")
    for role in ("targets", "root", "targets"):
        kedge(running, "rotate", role)
    kedge(running, "delegate", "shapes")
    kedge(running, "list")
    known.refresh(time.time())
    # Versions count on from Unix time: several within a second are ahead of it for that long.
    time.sleep(max(0.0, known._metadata.proven()[0] + 1 - time.time()))
    running.context.engine.dispose()
    shutil.move(running.home / "server", running.home / "lost")
    shutil.move(running.home / "backup", running.home / "server")
    with serve(running.home, running.trust) as (context, url):
        restored = replace(running, context=context, url=url)
        token = known._http.headers["Authorization"].split()[1]
        board = ImageRepository(url, token, running.home / "cam-1", running.trust.root)
        with pytest.raises(TrustError):
            board.refresh(time.time())
        assert "4.root" in kedge(restored, "push")
        board.refresh(time.time())
        assert board.find(MANIFEST.format("1.0"))
        assert "everything" in kedge(restored, "push")
        board.close()


def test_metadata_that_cannot_be_renewed_raises_an_alarm(running: World) -> None:
    genuine, repository = load_keys(running.trust.online.parent), running.context.repository
    other = signing.generate()
    repository._keys = replace(genuine, signers={**genuine.signers, "timestamp": (other,)})
    repository._timestamp_life = timedelta(days=9)  # more than half of it is over
    for _ in range(2):
        scheduler.renew(running.context)
    health = httpx.get(f"{running.url}/healthz").json()
    assert health["status"] == "alarm"
    assert "no timestamp key" in health["alarm"]
    entries = running.operator.http.get("/api/v1/audit").text
    assert entries.count("could not be renewed") == 1
    repository._keys = genuine
    scheduler.renew(running.context)
    assert httpx.get(f"{running.url}/healthz").json()["status"] == "ok"
