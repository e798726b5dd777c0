"""``kedge keys`` and ``kedge yank``, as people type them, against a running server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from kedge_agent.tuf_client import ImageRepository
from kedge_builder.publishing.keyring import Keyring
from kedge_server import scheduler
from kedge_server.devices.assignments import Director
from kedge_server.repository.signers import load_keys
from kedge_shared import signing, wire
from kedge_shared.errors import InputError, KedgeError, ServiceError, TrustError
from tests.server.fleet_keys import (
    MANIFEST,
    ROLE,
    Enrol,
    file_key,
    give_to_team,
    kedge,
)
from tests.sim.world import World, serve


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
    named = known.director()
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
    seen = running.operator.repository().timestamp
    while int(time.time()) <= seen:  # versions are Unix times, and ran ahead: many in one second
        time.sleep(0.05)
    running.context.engine.dispose()
    shutil.move(running.home / "server", running.home / "lost")
    shutil.move(running.home / "backup", running.home / "server")
    with serve(running.home, running.trust) as (context, url):
        restored = replace(running, context=context, url=url)
        token = running.devices[0].http.headers["Authorization"].split()[1]
        board = ImageRepository(url, token, running.home / "cam-1", running.trust.root)
        with closing(board):
            with pytest.raises(TrustError, match="not to be trusted"):
                board.refresh(time.time())
            assert "4.root" in kedge(restored, "push")
            board.refresh(time.time())
            assert board.find(MANIFEST.format("1.0"))
            assert "everything" in kedge(restored, "push")


def test_metadata_that_cannot_be_renewed_raises_an_alarm(running: World) -> None:
    genuine, repository = load_keys(running.trust.online.parent), running.context.repository
    other = signing.generate()
    repository._keys = replace(genuine, signers={**genuine.signers, "timestamp": (other,)})
    repository._timestamp_life = timedelta(days=9)  # more than half of it is over
    for _ in range(2):
        with pytest.raises(KedgeError, match="no timestamp key"):
            scheduler.renew(running.context)
    health = httpx.get(f"{running.url}/healthz").json()
    assert health["status"] == "alarm"
    assert "no timestamp key" in health["alarm"]
    entries = running.operator.http.get("/api/v1/audit").text
    assert entries.count("could not be renewed") == 1
    repository._keys = genuine
    scheduler.renew(running.context)
    assert httpx.get(f"{running.url}/healthz").json()["status"] == "ok"


def test_a_second_person_signs_for_root_with_a_key_that_was_made_here(
    running: World, enrol: Enrol
) -> None:
    from typer.testing import CliRunner

    from kedge_shared.cli import build_app

    running.publish("1.0", 10)
    known = enrol("cam-1")
    key = running.trust.offline / "second.key"
    made = CliRunner().invoke(build_app(), ["keys", "new", "--out", str(key), "--json"])
    assert made.exit_code == 0, made.output
    public = json.loads(made.output)["public"]
    assert key.stat().st_mode & 0o077 == 0
    assert "PRIVATE" not in Path(public).read_text()
    kedge(running, "add", "root", "--key", public, "--threshold", "2")
    kedge(running, "rotate", "targets")
    known.refresh(time.time())
    assert known.find(MANIFEST.format("1.0"))
    key.rename(running.home / "with-its-owner.key")
    with pytest.raises((InputError, TrustError)):
        kedge(running, "rotate", "targets")
