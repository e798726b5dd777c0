"""The console without a browser: who is let in, what is answered, what pages are made of."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from kedge_server.console import assets
from kedge_server.console.devices import language
from kedge_shared.accounts import HEADER_CSRF
from kedge_shared.operator_client import OperatorClient
from kedge_shared.phases import Phase
from kedge_shared.protocol import Verdict
from tests.server.people import PASSWORD, staffed
from tests.sim.world import TOKEN, World

CONSOLE = Path(assets.__file__).parent


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with staffed(tmp_path_factory.mktemp("fleet")) as found:
        yield found


@contextmanager
def browser(fleet: World, name: str) -> Iterator[httpx.Client]:
    """Logs in by the form, as a browser does."""
    headers = {"Accept": "text/html"}
    with httpx.Client(base_url=fleet.url, timeout=60, headers=headers) as client:
        answer = client.post("/login", data={"name": name, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        yield client


def csrf(page: str) -> dict[str, str]:
    found = re.search(r'name="kedge-csrf" content="([0-9a-f]+)"', page)
    assert found is not None
    return {HEADER_CSRF: found[1], "HX-Request": "true"}


def test_a_stranger_is_led_to_the_login_and_back(fleet: World) -> None:
    with httpx.Client(base_url=fleet.url, timeout=60, headers={"Accept": "text/html"}) as client:
        answer = client.get("/rollouts", params={"state": "running"})
        assert (answer.status_code, answer.headers["location"]) == (
            303, "/login?next=/rollouts%3Fstate%3Drunning"
        )  # fmt: skip
        page = client.get(answer.headers["location"])
        assert 'value="/rollouts?state=running"' in page.text
        wrong = client.post("/login", data={"name": "otto", "password": "wrong", "next": "/"})
        assert wrong.status_code == 401
        assert "name or password is wrong" in wrong.text
        fields = {"name": "otto", "password": PASSWORD, "next": "/rollouts?state=running"}
        inside = client.post("/login", data=fields)
        assert inside.headers["location"] == "/rollouts?state=running"
        assert client.get("/rollouts").status_code == 200


@pytest.mark.parametrize("trap", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_the_login_leads_nowhere_else(fleet: World, trap: str) -> None:
    fields = {"name": "otto", "password": PASSWORD, "next": trap}
    answer = httpx.post(f"{fleet.url}/login", data=fields, timeout=60)
    assert answer.headers["location"] == "/"


def test_another_sites_page_cannot_log_a_browser_in(fleet: World) -> None:
    fields = {"name": "otto", "password": PASSWORD}
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303)):
        headers = {"Sec-Fetch-Site": site}
        answer = httpx.post(f"{fleet.url}/login", data=fields, headers=headers, timeout=60)
        assert answer.status_code == status


def test_a_deed_without_the_sessions_header_is_refused(fleet: World) -> None:
    with browser(fleet, "otto") as client:
        page = client.get("/enrolments").text
        refused = client.post("/enrolments/tokens", data={"count": 1})
        assert refused.status_code == 403
        made = client.post("/enrolments/tokens", data={"count": 2}, headers=csrf(page))
        assert len(re.findall(r"data-copy=", made.text)) == 2


def test_an_open_page_whose_session_is_over_goes_to_the_login(fleet: World) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": f"{fleet.url}/devices?q=name==a"}
    answer = httpx.get(f"{fleet.url}/devices", headers=headers, timeout=60)
    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/login?next=/devices%3Fq%3Dname%3D%3Da"


def test_pages_show_to_each_what_is_theirs(fleet: World) -> None:
    seen = {}
    for name in ("vera", "otto", "anna", "ada"):
        with browser(fleet, name) as client:
            page = client.get("/").text
            seen[name] = ('href="/enrolments"' in page, 'href="/rollouts/new"' in page)
            assert client.get("/rollouts/new").status_code == (200 if seen[name][1] else 403)
    assert seen == {"vera": (False, False), "otto": (True, True), "anna": (False, False),
                    "ada": (True, True)}  # fmt: skip


def test_a_later_page_of_a_list_stays_that_page_when_it_is_asked_for_anew(fleet: World) -> None:
    with browser(fleet, "vera") as client:
        first = fleet.devices[0].name
        page = client.get("/devices", params={"after": first}).text
        again = re.search(r'hx-get="(/devices[^"]*)"', page)
        assert again is not None
        rows = client.get(html.unescape(again[1]), headers={"HX-Request": "true"}).text
        assert f'/devices/{first}"' not in rows
        assert f'/devices/{fleet.devices[1].name}"' in rows


def test_errors_are_pages_that_say_what_to_do(fleet: World) -> None:
    with browser(fleet, "vera") as client:
        for path, status, said in (
            ("/devices/nobody", 404, "there is no device nobody"),
            ("/rollouts/ro-0", 404, "there is no rollout ro-0"),
            ("/rollouts/new", 403, "rollouts.run is needed"),
            ("/nowhere", 404, "Not Found"),
        ):
            answer = client.get(path)
            assert (answer.status_code, said in answer.text) == (status, True), path
            assert "To the fleet" in answer.text
            # What is not there is looked for in the list that it would be in.
            behind = re.match(r"/\w+(?=/)", path)
            wanted = [f'href="{behind[0]}"'] if behind and status == 404 else []
            assert re.findall(r'class="button" (href="/\w+")', answer.text) == wanted
        part = client.get("/devices/nobody", headers={"HX-Request": "true"})
        assert 'role="alert"' in part.text
        assert "<html" not in part.text


def test_pages_run_under_a_policy_without_anything_inline(fleet: World) -> None:
    with browser(fleet, "ada") as client:
        for path in ("/", "/devices", "/devices/cam-0", "/enrolments", "/rollouts",
                     "/rollouts/new", "/login"):  # fmt: skip
            answer = client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", answer.text)
            assert not re.search(r"(?:src|href)=\"(?:https?:)?//", answer.text), path


def test_what_a_page_loads_is_small_and_kept_for_good(fleet: World) -> None:
    page = httpx.get(f"{fleet.url}/login").text
    with browser(fleet, "ada") as client:
        page += client.get("/").text
        total = 0
        for path in sorted(set(re.findall(r'(?:src|href)="(/console/assets/[^"]+)"', page))):
            answer = client.get(path)
            assert "immutable" in answer.headers["cache-control"]
            tag = {"If-None-Match": answer.headers["etag"]}
            assert client.get(path, headers=tag).status_code == 304
            total += len(answer.content)
        assert 50_000 < total < 300_000
        older = "/console/assets/0123456789abcdef/console.css"
        assert client.get(older).headers["cache-control"] == "no-cache"
        assert client.get("/console/assets/0123456789abcdef/route.py").status_code == 404


def test_a_selector_that_cannot_be_read_is_told_once(fleet: World) -> None:
    with browser(fleet, "otto") as client:
        page = client.get("/devices", params={"q": "site==a"}).text
        assert page.count("no such field") == 1
        assert "No board matches" not in page
        assert "/console/devices/count" not in page
        assert "Tag many" in client.get("/devices", params={"q": "tag.site==a"}).text


def test_every_vendored_file_is_named_with_its_licence() -> None:
    told = (CONSOLE / "assets" / "vendor" / "README.md").read_text()
    for each in (CONSOLE / "assets" / "vendor").iterdir():
        assert f"`{each.name}`" in told or each.name == "README.md"


def test_a_confined_person_sees_their_part_alone(fleet: World) -> None:
    with OperatorClient(fleet.url, TOKEN) as desk:
        from kedge_shared.accounts import UserRequest

        desk.add_user(UserRequest(name="nora", roles=("operator",), scope="tag.site==b",
                                  password=PASSWORD))  # fmt: skip
    with browser(fleet, "nora") as client:
        page = client.get("/devices").text
        assert "cam-2" in page
        assert "cam-0" not in page
        assert client.get("/devices/cam-0").status_code == 404
        assert "1 board" in client.get("/console/devices/count").text
        # Nobody tags a board out of the part that they are confined to.
        wanted = {"device": "cam-2", "key": "site", "value": "a"}
        answer = client.post("/console/tags", data=wanted, headers=csrf(page))
        assert answer.status_code == 409
        other = {"device": "cam-0", "key": "lab", "value": "yes"}
        assert client.post("/console/tags", data=other, headers=csrf(page)).status_code == 404


def test_many_boards_are_tagged_at_once_and_filters_are_kept(fleet: World) -> None:
    with browser(fleet, "otto") as client:
        page = client.get("/devices", params={"q": "tag.site==a"}).text
        assert "cam-2" not in page
        wanted = {"q": "tag.site==a", "key": "lab", "value": "yes"}
        asked = client.get("/console/tags/confirm", params=wanted, headers=csrf(page)).text
        assert "Tag 2 boards?" in asked
        assert 'name="expected" value="2"' in asked
        # Nobody said yes to so many, whether boards came or went meanwhile.
        for expected in ({}, {"expected": 1}, {"expected": 3}):
            deed = {**wanted, "which": "all", **expected}
            answer = client.post("/console/tags", data=deed, headers=csrf(page))
            assert answer.status_code == 409
            assert "2 boards match now" in answer.text
        assert "cam-0" not in client.get("/devices", params={"q": "tag.lab==yes"}).text
        deed = {**wanted, "which": "all", "expected": 2}
        assert client.post("/console/tags", data=deed, headers=csrf(page)).status_code == 204
        tagged = client.get("/devices", params={"q": "tag.lab==yes"}).text
        assert ("cam-0" in tagged, "cam-1" in tagged, "cam-2" in tagged) == (True, True, False)
        some = {"device": ["cam-0"], "key": "lab", "value": ""}
        client.post("/console/tags", data=some, headers=csrf(page))
        assert "cam-0" not in client.get("/devices", params={"q": "tag.lab==yes"}).text
        kept_one = {"name": "the lab", "q": "tag.lab==yes"}
        client.post("/console/filters", data=kept_one, headers=csrf(page))
        assert "the lab" in client.get("/devices").text
        with browser(fleet, "ada") as other:
            assert "the lab" not in other.get("/devices").text
        client.post(
            "/console/filters", data={"name": "the lab", "deed": "drop"}, headers=csrf(page)
        )
        assert "the lab" not in client.get("/devices").text
    with OperatorClient(fleet.url, TOKEN) as desk:
        log = [(each.actor, each.detail) for each in desk.newest_audit(50)]
    assert ("otto", "lab=yes: cam-0, cam-1") in log
    assert ("otto", "no lab: cam-0") in log


def test_a_rollout_is_made_shown_and_taken_back(fleet: World) -> None:
    with browser(fleet, "otto") as client:
        page = client.get("/rollouts/new").text
        fields = {
            "release": "shapes 1.0", "selector": "tag.site=in=(a,b)", "gate": "thresholds",
            "size": ["1", "100 %"], "soak": ["0", "0"], "approval": ["yes", ""],
        }  # fmt: skip
        plan = client.post("/rollouts/new/preview", data=fields, headers=csrf(page)).text
        assert "shapes 1.0 to 3 boards" in plan
        assert "cam-0" in plan
        faulty = {**fields, "selector": "site==a"}
        said = client.post("/rollouts/new/preview", data=faulty, headers=csrf(page))
        assert (said.status_code, "no such field" in said.text) == (422, True)
        made = client.post("/rollouts", data=fields, headers=csrf(page))
        path = made.headers["hx-redirect"]
        for each in fleet.devices:
            each.live()
        fleet.tick()
        shown = client.get(path).text
        assert "asking" in shown
        assert "1 of 1 devices healthy, 0 failed" in shown
        assert 'aria-label="Approve"' not in shown
        assert client.post(f"{path}/approve", headers=csrf(page)).status_code == 403
        told = client.get(f"{path}/confirm/halt").text
        # Their first release: there is none to go back to.
        assert "0 boards go back" in told
        assert "1 board has no release before" in told
        assert "2 boards not reached yet get nothing" in told
        assert "1 board keeps the release" in client.get(f"{path}/confirm/stop").text
        with browser(fleet, "anna") as approver:
            asks = approver.get(f"{path}/confirm/approve").text
            assert "The next stage, 100 %, begins: 2 more boards get the release." in asks
            approver.post(f"{path}/approve", headers=csrf(approver.get(path).text))
        for each in fleet.devices:
            each.live()
        fleet.tick()
        assert "completed" in client.get(path).text
        board = client.get("/devices/cam-0").text
        assert "shapes 1.0" in board
        assert "confirmed" in board


def test_a_board_shows_why_it_refused(fleet: World) -> None:
    fleet.publish("1.1", 11)
    board = fleet.devices[0]
    fleet.roll_out("1.1", 100)
    board.poll()
    figures = Verdict(code="accuracy", reason="0.41 under the floor of 0.60", cause="harm",
                      stopped_in=Phase.PREFLIGHT, evidence={"label_score": 0.41})  # fmt: skip
    board.send(board.report(Phase.PREFLIGHT))
    board.send(board.report(Phase.REFUSED, figures))
    fleet.tick()
    with browser(fleet, "vera") as client:
        page = client.get("/devices/cam-0").text
        assert "0.41 under the floor of 0.60" in page
        assert "label score" in page
        halted = client.get("/rollouts", params={"state": "halted"}).text
        assert "shapes 1.1" in halted
        rollout = re.search(r"/rollouts/(ro-\w+)", halted)
        assert rollout is not None
        shown = client.get(rollout[0]).text
        assert "0.41 under the floor" in shown
        assert "<strong>1</strong> failed" in shown


def test_help_comes_as_one_types(fleet: World) -> None:
    with browser(fleet, "vera") as client:
        for typed, wanted in (
            ("", "class"), ("cl", "class"), ("class==x86-on", "x86-onnxruntime"),
            ("tag.", "tag.site"),
            ("class==x86-onnxruntime;name==cam-", "cam-1"), ("tag.site=in=(", "b"),
        ):  # fmt: skip
            assert wanted in client.get("/console/language", params={"q": typed}).text, typed
        assert "no such field" in client.get("/console/language", params={"q": "site==a"}).text
    assert set(language.MEANINGS) >= {"name", "class", "release"}
