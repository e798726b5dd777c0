"""The fleet at a glance: who is behind is told by what each board was told, not by one release."""

from __future__ import annotations

import re
import time
from dataclasses import asdict

import httpx
import pytest
from sqlmodel import col, update
from typer.testing import CliRunner

from kedge_server import scheduler
from kedge_server.accounts.principal import Reach
from kedge_server.console.fleet.overview import Overview, look
from kedge_server.console.rollouts import listing
from kedge_server.database import transaction
from kedge_server.devices.tables import DeviceRow
from kedge_shared.accounts import ApiTokenRequest, UserRequest
from kedge_shared.cli import build_app
from kedge_shared.operator_client import OperatorClient
from kedge_shared.phases import Phase
from kedge_shared.rollouts import GateSpec, RolloutSpec, StageSpec
from tests.server.both import database  # noqa: F401
from tests.server.people import PASSWORD, browser
from tests.sim.device import HARM
from tests.sim.world import World

#: A figure of the fleet's page: its title, then its number.
FIGURE = re.compile(r"<dt>(?:<a [^>]+>)?([A-Z][a-z ]+)(?:</a>)?</dt>\s*<dd>(\d+)\b(?! ?%)")

BOARD = re.compile(r'<td data-label="Board"><a href="/devices/([^"]+)"')


def change(world: World, name: str, **values: object) -> None:
    with transaction(world.context.engine) as session:
        session.execute(update(DeviceRow).where(col(DeviceRow.id) == name).values(**values))


def glance(world: World, *scopes: str, later: float = 0.0) -> Overview:
    with transaction(world.context.engine) as session:
        return look(session, Reach.of(*scopes), 60, time.time() + later)


@pytest.mark.parametrize("scopes", [(), ("class==x86-onnxruntime",)])
def test_a_canary_is_ahead_and_who_refused_is_behind(
    running: World, scopes: tuple[str, ...]
) -> None:
    fleet = [running.enrol(f"cam-{each}") for each in range(4)]
    running.publish("1.0", 10)
    running.roll_out("1.0")
    for each in fleet * 2:
        each.live()
    running.tick()
    running.publish("1.1", 11)
    running.roll_out("1.1", 50, 100, max_failure_share=1.0)
    running.tick()
    for each in fleet:
        each.poll()
    told = [each for each in fleet if each.assignment and "/1.1/" in each.assignment.manifest.path]
    assert len(told) == 2
    told[0].live()
    told[1].send(told[1].report(Phase.PREFLIGHT))
    found = glance(running, *scopes)
    assert (found.behind, found.at_work, found.stragglers) == (0, 1, ())
    told[1].send(told[1].report(Phase.REFUSED, HARM))
    found = glance(running, *scopes)
    assert (found.devices, found.behind, found.at_work, found.silent) == (4, 1, 0, 0)
    assert [asdict(each)["why"] for each in found.stragglers] == ["runs 1.0, assigned 1.1: refused"]
    share = found.classes[0]
    assert (share.releases, set(share.assigned)) == ({"1.0": 3, "1.1": 1}, {"1.0", "1.1"})


def test_who_was_not_heard_of_is_silent(running: World) -> None:
    running.enrol("cam-1").poll()
    assert glance(running).silent == 0
    assert [each.seen_5m for each in glance(running, later=301).classes] == [0]
    found = glance(running, later=3600)
    assert (found.silent, found.classes[0].silent) == (1, 1)
    assert [each.why for each in found.stragglers] == ["silent"]


@pytest.mark.parametrize("scope", ["", "tag.site==a"])
def test_everybody_tells_the_same_numbers(
    running: World, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board that works, one that is silent, refused, revoked, or only measures: told alike."""
    for at in range(6):
        running.enrol(f"cam-{at}", tags={"site": "ab"[at % 2]}).poll()
    running.publish("1.0", 10)
    running.roll_out("1.0", max_failure_share=1.0)
    for each in running.devices:
        each.poll()
    running.devices[0].live()
    running.devices[1].send(running.devices[1].report(Phase.REFUSED, HARM))
    running.devices[2].send(running.devices[2].report(Phase.SHADOW))
    scheduler.seen(running.context)
    running.operator.revoke_device("cam-4")
    change(running, "cam-3", last_seen=time.time() - 7200)
    change(running, "cam-5", serves=False)
    asked = UserRequest(name="pat", roles=("viewer",), password=PASSWORD, scope=scope)
    running.operator.add_user(asked)
    wanted = ApiTokenRequest(name="t", roles=("viewer",), user="pat")
    token = running.operator.make_api_token(wanted).token
    with OperatorClient(running.url, token) as who, browser(running, "pat") as pages:
        told, page = who.fleet(), pages.get("/").text
        listed = {state: BOARD.findall(pages.get(f"/devices?state={state}").text)
                  for state in ("silent", "work", "behind")}  # fmt: skip
    shown = {title: int(value) for title, value in FIGURE.findall(page)}
    assert shown["Boards"] == sum(each.devices for each in told.classes) == (4 if not scope else 2)
    assert shown["Silent"] == sum(each.silent for each in told.classes)
    assert shown["At work"] == sum(each.at_work for each in told.classes) == 1
    assert shown["Behind their assignment"] == sum(each.behind for each in told.classes)
    for state, title in (("silent", "Silent"), ("work", "At work"),
                         ("behind", "Behind their assignment")):  # fmt: skip
        assert len(listed[state]) == shown[title], "the list shows whom the figure counts"
    assert (told.revoked, told.measuring) == ((1, 1) if not scope else (1, 0))
    monkeypatch.setenv("KEDGE_TOKEN", token)
    monkeypatch.setenv("COLUMNS", "200")
    line = CliRunner().invoke(build_app(), ["fleet", "health", "--server", running.url]).output
    (cells,) = re.findall(r"│ x86-onnxruntime +│" + r" +(\d+) +│" * 6, line)
    (only,) = told.classes
    back = only.phases.get("refused", 0)
    assert [*map(int, cells)] == [
        only.devices, only.seen_1d, only.silent, only.at_work, only.behind, back
    ]  # fmt: skip
    if not scope:
        assert (only.silent, only.behind, back) == (1, 2, 1)
        metrics = httpx.get(f"{running.url}/metrics").text
        by_phase = dict(re.findall(r'^kedge_devices\{.*phase="(\w+)"\} ([\d.]+)$', metrics, re.M))
        assert {phase: int(float(count)) for phase, count in by_phase.items()} == only.phases
        assert f'kedge_devices_seen{{within="5m"}} {only.seen_5m}.0' in metrics


def test_rollouts_are_counted_and_listed_within_ones_scope(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the newest page is all of others'."""
    monkeypatch.setattr(listing, "SHOWN", 1)
    for at, site in enumerate("aab"):
        running.enrol(f"cam-{at}", tags={"site": site})
    for counter, (release, selector) in enumerate(
        (("1.0", "tag.site==a"), ("1.1", "tag.site==b"), ("1.2", "")), start=10
    ):
        running.publish(release, counter)
        gate = GateSpec(soak_seconds=0)
        stages = (StageSpec(percent=100, gate=gate),)
        running.operator.create_rollout(
            RolloutSpec(
                model="shapes", release=release, selector=selector, stages=stages, priority=counter
            )
        )
    running.operator.add_user(
        UserRequest(name="pat", roles=("viewer",), password=PASSWORD, scope="tag.site==a")
    )
    running.operator.add_user(UserRequest(name="ada", roles=("viewer",), password=PASSWORD))
    seen = {}
    for name in ("pat", "ada"):
        with browser(running, name) as pages:
            page = pages.get("/rollouts").text
            first = pages.get("/").text
        seen[name] = (
            re.findall(r'href="/rollouts/ro-\w+">shapes ([\d.]+)<', page),
            dict(re.findall(r">(all|running|completed) <span class=\"count\">(\d+)<", page)),
            "shapes 1.0" in first, "shapes 1.1" in first,
        )  # fmt: skip
    assert seen == {
        "pat": (["1.0"], {"all": "1", "running": "1", "completed": "0"}, True, False),
        "ada": (["1.2"], {"all": "3", "running": "3", "completed": "0"}, True, True),
    }
