"""The console in a real browser: what an operator does, and that everybody can read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from kedge_server.database import transaction
from kedge_server.telemetry import service as telemetry
from kedge_shared.accounts import UserRequest
from kedge_shared.phases import Phase
from kedge_shared.rollouts import GateSpec, RolloutSpec, SequentialSpec, StageSpec
from tests.server.browsing import CLASSES, WORSE, heard, reported, shot, window
from tests.server.people import PASSWORD
from tests.sim.chromium import chromium, missing, violations
from tests.sim.device import SimDevice
from tests.sim.renewing import RenewingDevice
from tests.sim.world import World, world

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
Login = Callable[..., Any]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Twelve boards that run 1.0, a published 1.1, and somebody of every role."""
    with world(tmp_path_factory.mktemp("fleet")) as found:
        for name, role in (("vera", "viewer"), ("otto", "operator"), ("anna", "approver"),
                           ("ada", "admin")):  # fmt: skip
            found.operator.add_user(UserRequest(name=name, roles=(role,), password=PASSWORD))  # type: ignore[arg-type]
        for release, counter in (("1.0", 10), ("1.1", 11)):
            found.publish(release, counter, classes=CLASSES, report=reported())
        for at in range(12):
            found.enrol(f"cam-{at:02}", CLASSES[at % 3 == 0], tags={"site": "ab"[at % 2]})
        found.roll_out("1.0")
        for board in found.devices:
            board.live()
            board.send(board.report(Phase.CONFIRMED, window=window()))
        found.tick()
        with transaction(found.context.engine) as session:
            telemetry.roll_up(session)
        yield found


@pytest.fixture(scope="module")
def login(fleet: World) -> Iterator[Login]:
    """Opens pages of somebody who has logged in through the form, once each."""
    states: dict[str, Any] = {}
    with chromium() as browser, ExitStack() as opened:

        def open_page(name: str, **options: Any) -> Any:
            context = browser.new_context(
                storage_state=states.get(name), base_url=fleet.url, **options
            )
            opened.callback(context.close)
            page = context.new_page()
            page.faults = []
            page.on("pageerror", lambda error: page.faults.append(str(error)))
            page.on("console", lambda line: heard(page, line))
            page.set_default_timeout(90_000)
            page.goto("/")
            if name not in states:
                page.get_by_label("Name").fill(name)
                page.get_by_label("Password").fill(PASSWORD)
                page.get_by_role("button", name="Log in").click()
                page.get_by_role("heading", name="Fleet").wait_for()
                states[name] = context.storage_state()
            return page

        yield open_page


def test_help_comes_while_a_selector_is_typed(login: Login) -> None:
    page = login("vera")
    page.goto("/devices")
    page.keyboard.press("/")
    page.keyboard.type("class==x86-op")
    page.get_by_role("button", name="x86-openvino").click()
    assert page.get_by_label("Selector").input_value() == "class==x86-openvino"
    page.get_by_role("button", name="Find").click()
    page.get_by_text("4 boards").wait_for()
    assert page.locator("tbody tr").count() == 4
    # The rows are asked for anew; what is said of them stays.
    with page.expect_response(lambda answer: "/devices?" in answer.url):
        page.evaluate(
            "document.querySelectorAll('[data-live]').forEach(e => htmx.trigger(e, 'live'))"
        )
    page.get_by_text("4 boards").wait_for()
    page.goto("/devices?q=site==a")
    assert "no such field" in page.locator("#help").inner_text()
    assert page.faults == []


def test_a_gate_stops_a_rollout_while_one_watches(fleet: World, login: Login) -> None:
    page = login("otto")
    page.goto("/rollouts/new")
    page.locator("[name=release]").select_option("shapes 1.1")
    assert page.get_by_label("Slower by").is_visible()
    assert not page.get_by_label("Failed at most").is_visible()
    page.get_by_label("Judged by").select_option("thresholds")
    assert page.get_by_label("Failed at most").is_visible()
    assert not page.get_by_label("Slower by").is_visible()
    for field in page.get_by_label("Soak, minutes").all():
        field.fill("0")
    page.get_by_label("Stage 1").fill("20 %")
    page.get_by_label("Stage 2").fill("15 %")
    page.locator("#preview").get_by_text("stages must grow, 15 comes after 20").wait_for()
    page.get_by_label("Stage 2").fill("50 %")
    page.get_by_text("shapes 1.1 to 12 boards").wait_for()
    page.locator("#preview").get_by_text("x86-openvino: 1").first.wait_for()
    shot(page, "new-rollout")
    page.get_by_role("button", name="Start the rollout").click()
    page.wait_for_url(re.compile("/rollouts/ro-"))
    stage = page.locator(".stage").first
    assert "running" in stage.inner_text()
    assert page.get_by_role("button", name="Approve").count() == 0
    for board in fleet.devices:
        board.live()
    fleet.tick()
    # Nothing is loaded anew: the page hears of it.
    stage.get_by_text("asking").first.wait_for()
    approver = login("anna")
    approver.goto(page.url)
    approver.get_by_role("button", name="Approve…").click()
    approver.locator("dialog").get_by_text("get the release").wait_for()
    shot(approver, "approve")
    approver.locator("dialog").get_by_role("button", name="Approve").click()
    stage.get_by_text("approved by anna").wait_for()
    for board in fleet.devices:
        if "/1.1/" not in board.runs:
            board.poll()
            path = board.assignment.manifest.path if board.assignment else ""  # type: ignore[union-attr]
            if "/1.1/" in path:
                board.send(board.report(Phase.REFUSED, WORSE))
    fleet.tick()
    page.locator(".notice.bad").get_by_text("label score 0.41").wait_for()
    assert "halted" in page.locator("h1 + .badge").inner_text()
    shot(page, "halted")
    assert page.get_by_role("button", name="Abort").count() == 0
    assert page.faults == []


def test_an_abort_names_how_many_boards_go_back(fleet: World, login: Login) -> None:
    for board in fleet.devices:
        board.live()
    fleet.publish("1.2", 12, classes=CLASSES)
    made = fleet.roll_out("1.2", 50, 100, soak_seconds=600)
    for board in fleet.devices:
        board.live()
    fleet.tick()
    page = login("otto")
    page.goto(f"/rollouts/{made.id}")
    page.get_by_role("button", name="Abort: keep…").click()
    dialog = page.locator("dialog")
    dialog.get_by_text("6 boards keep the release.").wait_for()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.get_by_role("button", name="Abort: revert…").click()
    dialog.get_by_text("6 boards go back to the release before.").wait_for()
    assert "6 boards not reached yet get nothing." in dialog.inner_text()
    # What does harm is not what Enter does.
    assert page.evaluate("document.activeElement.textContent") == "Leave it as it is"
    shot(page, "abort")
    dialog.get_by_role("button", name="Abort: 6 boards revert").click()
    page.locator("h1 + .badge").get_by_text("halted").wait_for()
    went = 0
    for board in fleet.devices:
        board.poll()
        went += board.assignment is not None and board.assignment.intent == "revert"
    assert went >= 6
    assert page.faults == []


def test_who_may_not_is_not_offered_it(fleet: World, login: Login) -> None:
    # One that a test judges; it stays open for those who look at every page.
    gate = GateSpec(soak_seconds=600, sequential=SequentialSpec(min_agreement=0.9))
    stages = (StageSpec(percent=50, gate=gate), StageSpec(percent=100, gate=gate))
    made = fleet.operator.create_rollout(RolloutSpec(model="shapes", release="1.2", stages=stages))
    for board in fleet.devices[1:]:
        board.live()
    fleet.tick()
    offered = {}
    for name in ("vera", "otto", "anna"):
        page = login(name)
        page.goto(f"/rollouts/{made.id}")
        offered[name] = page.locator(".head").first.get_by_role("button").all_inner_texts()
        page.goto("/devices/cam-00")
        offered[name] += page.locator(".head").first.get_by_role("button").all_inner_texts()
    assert offered == {
        "vera": [],
        "otto": ["Pause…", "Abort: revert…", "Abort: keep…", "Revoke…"],
        "anna": ["Pause…", "Abort: revert…", "Abort: keep…"],
    }


def test_times_are_the_viewers_and_say_so(login: Login) -> None:
    page = login("vera", timezone_id="Asia/Kolkata", locale="en-GB")
    assert page.locator("#zone").inner_text() in {"Asia/Kolkata", "Asia/Calcutta"}
    page.goto("/rollouts")
    when = page.locator("time").first
    utc = when.get_attribute("datetime")
    minutes = int(utc[14:16])
    assert f":{(minutes + 30) % 60:02}" in when.inner_text()


def test_a_board_has_a_line_from_the_first_moment_on(login: Login) -> None:
    page = login("vera")
    page.goto("/devices/cam-01")
    page.locator("[data-trace] canvas").wait_for()
    assert page.faults == []


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 390),
                                              ("dark", 390)])  # fmt: skip
def test_everybody_can_read_every_page(fleet: World, login: Login, theme: str, width: int) -> None:
    page = login("ada", color_scheme=theme, viewport={"width": width, "height": 900})
    rollouts = [each.id for each in fleet.operator.rollouts()]
    # The way the navigation goes, and one of each kind behind it.
    paths = [each.get_attribute("href") for each in page.locator("nav[aria-label=Pages] a").all()]
    paths += ["/rollouts/new", f"/rollouts/{rollouts[0]}", "/devices/cam-00", "/devices?q=site==a",
              "/devices/nobody", "/rollouts?state=proposed", "/models/shapes",
              "/models/shapes/releases/1.1", "/models/shapes/compare",
              "/models/shapes/releases/1.1/layers?class=x86-openvino", "/settings/users",
              "/settings/users/otto", "/settings/webhooks"]  # fmt: skip
    wrong = []
    for path in paths:
        page.goto(path)
        page.wait_for_timeout(250)
        # What is folded away has to be read too.
        page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
        wrong += violations(page)
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            wrong.append(f"{path} is {wide} wide")
        kind = path.strip("/").split("?")[0].replace(rollouts[0], "one").replace("/", "-")
        shot(page, f"{kind or 'fleet'}-{theme}-{width}")
    assert wrong == []
    # A page that is not there is told of as an error, and that alone.
    assert [each for each in page.faults if "404" not in each] == []


def test_a_page_is_walked_through_with_keys_alone(login: Login) -> None:
    page = login("vera")
    page.goto("/devices")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_the_theme_is_kept(login: Login) -> None:
    page = login("vera", color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    page.get_by_label("Change between light and dark").click()
    after = page.evaluate(ground)
    assert before != after
    page.goto("/devices")
    assert page.evaluate(ground) == after


def test_logging_out_ends_the_session(login: Login) -> None:
    page = login("vera")
    page.context.clear_cookies()
    page.goto("/login")
    page.get_by_label("Name").fill("vera")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    page.goto("/devices")
    page.get_by_role("heading", name="Log in").wait_for()


def test_a_board_is_enrolled_by_a_token_and_by_approval(fleet: World, login: Login) -> None:
    page = login("otto")
    page.get_by_role("link", name="Enrolment", exact=True).click()
    page.get_by_role("button", name="Make", exact=True).click()
    token = page.locator(".tokens code").inner_text()
    board = SimDevice(fleet.url, "new-1", CLASSES[0], fleet.trust.root)
    assert board.enrol(token).is_success
    waiting = RenewingDevice(fleet.url, "new-2", CLASSES[0], fleet.trust.root)
    assert waiting.ask_in().status_code == 202
    page.reload()
    page.get_by_role("button", name="Approve new-2").click()
    page.get_by_text("Nobody waits.").wait_for()
    page.goto("/devices?q=name==new-*")
    assert page.locator("tbody tr").count() == 2
    assert waiting.renew().is_success
    board.http.close()
    waiting.http.close()
    assert page.faults == []


def test_a_token_is_made_copied_and_revoked(fleet: World, login: Login) -> None:
    page = login("otto")
    page.goto("/settings")
    page.get_by_text("Make a token").click()
    page.get_by_label("Name").fill("ci")
    page.get_by_role("button", name="Make the token").click()
    page.get_by_text("Token ci is made.").wait_for()
    assert page.locator("#secret").inner_text().startswith("kdg_")
    page.get_by_role("link", name="I have it").click()
    page.get_by_role("button", name="Revoke ci").click()
    page.locator("dialog").get_by_text("It was never used.").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Leave it as it is"
    shot(page, "revoke-token")
    page.locator("dialog").get_by_role("button", name="Revoke 1 token").click()
    page.locator("td .badge").get_by_text("revoked").wait_for()
    assert "kdg_" not in page.content()
    assert page.faults == []


def test_what_is_refused_is_said_where_it_was_asked(login: Login) -> None:
    page = login("ada")
    page.goto("/settings/users/vera")
    page.locator("fieldset").get_by_label("operator").check()
    page.get_by_role("button", name="Change…").click()
    page.locator("dialog").get_by_text("Becomes operator.").wait_for()
    page.keyboard.press("Escape")
    page.get_by_label("Only these boards").fill("site==a")
    page.get_by_role("button", name="Change…").click()
    page.get_by_role("button", name="Change vera").click()
    page.locator("#dialog-said").get_by_text("no such field").wait_for()
    page.goto("/settings")
    page.get_by_label("The current one").fill("wrong")
    page.get_by_label("A new one").fill("a new horse battery")
    page.get_by_label("The new one again").fill("a new horse battery")
    page.get_by_role("button", name="Set the password").click()
    page.locator("#password-said").get_by_text("not the current password").wait_for()
    assert page.faults == []


def test_the_log_is_searched_in_the_viewers_own_time(login: Login) -> None:
    page = login("ada", timezone_id="Asia/Kolkata", locale="en-GB")
    page.goto("/audit")
    page.get_by_label("From").fill("2020-01-01T05:30")
    page.get_by_label("Action begins with").fill("user")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url(re.compile("since=1577836800&"))
    assert page.get_by_label("From").input_value() == "2020-01-01T05:30"
    assert page.locator("tbody tr").count() >= 4
    page.get_by_role("button", name="Follow the chain").click()
    page.get_by_text("The chain holds").wait_for()
    assert page.faults == []


def test_a_tag_of_all_that_match_says_of_how_many_first(login: Login) -> None:
    page = login("otto")
    page.goto("/devices?q=class==x86-openvino")
    page.get_by_label("Tag", exact=True).fill("lab")
    page.get_by_label("Value").fill("yes")
    page.get_by_role("button", name="Tag all that match…").click()
    page.get_by_role("heading", name="Tag 4 boards?").wait_for()
    assert violations(page) == []
    shot(page, "tag-all")
    page.get_by_role("button", name="Tag 4 boards").click()
    page.get_by_text("lab: yes").nth(3).wait_for()
    assert page.get_by_text("lab: yes").count() == 4
    page.get_by_role("button", name="Tag all that match…").click()
    # The browser says that a tag is missing, where it is missing.
    assert page.evaluate("document.activeElement.name") == "key"
    assert not page.locator("dialog").is_visible()
    assert page.faults == []


def test_what_comes_before_one_listens_is_told(fleet: World, login: Login) -> None:
    """A board enrols after the page is made and before its stream is there."""
    page = login("vera")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/api/v1/events*", hold)
    page.goto("/devices?q=tag.site==late")
    page.get_by_text("No board matches.").wait_for()
    page.wait_for_function(
        "performance.getEntriesByType('resource').some(e => e.name.includes('count'))"
    )
    fleet.enrol("cam-late", CLASSES[0], tags={"site": "late"})
    for each in held:
        each.continue_()
    page.get_by_role("link", name="cam-late").wait_for()
    assert page.faults == []
