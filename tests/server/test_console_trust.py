"""The console's models, audit log, keys and settings: to whom, what, and nothing that is secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from sqlmodel import Session, col, select, update

from kedge_server.accounts.principal import WHOLE_FLEET, Reach
from kedge_server.audit.tables import AuditRow
from kedge_server.console.audit import integrity, searching, subjects
from kedge_server.console.models import builds, compare, listing, running
from kedge_server.console.trust import roles
from kedge_server.devices.tables import DeviceRow
from kedge_shared.manifest import Measured, Provenance, read_manifest
from tests.server.people import browser, staffed
from tests.shared import samples
from tests.sim.world import World

HOSTILE = "<script>alert('x')</script>"
SECRETS = ("kdg_", "whsec_", "$argon2", "PRIVATE KEY")


def measured(accuracy: float, latency: float) -> tuple[Measured, ...]:
    values = (("map50_95", accuracy), ("map50", accuracy + 0.2), ("latency_p95_ms", latency))
    return tuple(Measured(what=name, value=value, machine="a Xeon") for name, value in values)


def made_with(floating: str, tool: str = "1.0") -> Provenance:
    recipe = {"form": "qdq-u8s8", "float_blocks": floating}
    return Provenance(
        weights_sha256="a" * 64, data_sha256="b" * 64, recipe=recipe, tools={"kedge": tool}
    )


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with staffed(tmp_path_factory.mktemp("fleet")) as found:
        found.publish("1.1", 11, measured=measured(0.40, 20.0), provenance=made_with("none"))
        found.publish(
            "1.2", 12, measured=measured(0.42, 25.0), provenance=made_with("model.22", "1.1"),
            override=HOSTILE, verdict="overridden",
        )  # fmt: skip
        yield found


@pytest.fixture(scope="module")
def ada(fleet: World) -> Iterator[httpx.Client]:
    with browser(fleet, "ada") as client:
        yield client


def test_each_sees_the_pages_that_are_theirs(fleet: World, ada: httpx.Client) -> None:
    may = {
        "/models": "vera otto anna ada", "/models/shapes": "vera otto anna ada",
        "/models/shapes/releases/1.1": "vera otto anna ada", "/trust": "vera otto anna ada",
        "/models/shapes/compare": "vera otto anna ada", "/settings": "vera otto anna ada",
        "/audit": "anna ada", "/settings/users": "ada", "/settings/users/vera": "ada",
        "/settings/webhooks": "ada",
    }  # fmt: skip
    for name in ("vera", "otto", "anna", "ada"):
        with browser(fleet, name) as client:
            for path, who in may.items():
                wanted = 200 if name in who.split() else 403
                answer = client.get(path)
                assert answer.status_code == wanted, (name, path)
                assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", answer.text)
                assert not [each for each in SECRETS if each in answer.text], (name, path)
            assert ('href="/audit"' in client.get("/").text) == (name in may["/audit"].split())


def test_a_release_shows_what_was_measured_and_who_signed(fleet: World, ada: httpx.Client) -> None:
    page = ada.get("/models/shapes/releases/1.2").text
    assert "0.420" in page
    assert "25.0 ms" in page
    assert "model.22" in page
    assert "1 of 1 that must sign" in page
    assert "named by the signed targets" in page
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    origin = re.search(r'href="(/api/v1/artifacts/[0-9a-f]{64})"', page)
    manifest = re.search(r'href="(/tuf/targets/[^"]+)"', page)
    assert origin is not None and manifest is not None
    assert "payload" in ada.get(origin[1]).json()
    assert ada.get(manifest[1]).json()["release"] == "1.2"
    assert ada.get("/models/shapes/releases/9").status_code == 404
    assert ada.get("/models/nothing").status_code == 404
    assert ada.get("/models/nothing/compare").status_code == 404


def test_who_runs_a_build_is_counted_within_ones_scope(fleet: World, ada: httpx.Client) -> None:
    with Session(fleet.context.engine) as session:
        row = ada.get("/models/shapes/releases/1.1").text
        digest = re.search(r'href="(/tuf/targets/[^"]+)"', row)
        assert digest is not None
        engine = read_manifest(ada.get(digest[1]).content).engine_hash
        for name in ("cam-0", "cam-2"):
            change = update(DeviceRow).where(col(DeviceRow.id) == name)
            session.execute(change.values(release="1.1", engine=engine))
        session.commit()
        whole = running.count(session, WHOLE_FLEET)
        part = running.count(session, Reach.of("tag.site==a"))
    key = ("x86-onnxruntime", "1.1", engine)
    assert (running.boards_on(whole, *key), running.boards_on(part, *key)) == (2, 1)
    assert running.boards_on(whole, "x86-onnxruntime", "1.2", engine) == 0
    assert running.boards_with(whole, [key, (*key[:2], "f" * 64)]) == 2


def test_releases_are_paged_without_one_twice(
    fleet: World, ada: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "RELEASES_SHOWN", 1)
    seen, path = list[str](), "/models/shapes"
    while path:
        page = ada.get(path).text
        table = page[page.index('id="releases"') :]
        seen += re.findall(r'href="/models/shapes/releases/([\d.]+)"', table)
        more = re.search(r'href="([^"]+)" rel="next"', table)
        path = more[1].replace("&amp;", "&") if more else ""
    assert seen == ["1.2", "1.1", "1.0"]


def test_releases_side_by_side_say_what_is_better_and_what_changed(ada: httpx.Client) -> None:
    page = ada.get("/models/shapes/compare", params={"one": "1.1", "other": "1.2"}).text
    assert "▲ better" in page
    assert "+0.020 (+5.0%)" in page
    assert "▼ worse" in page
    assert "+5.00 ms (+25.0%)" in page
    assert "+ model.22" in page
    assert "tools › kedge" in page
    assert HOSTILE not in page


def test_a_comparison_misses_no_field_of_the_manifest() -> None:
    one = builds.Build("x", samples.manifest(), "1" * 64, "", True)
    changed = replace(samples.manifest(), input=replace(samples.manifest().input, fill=0))
    pair = compare.pairs({"x": (one, None)}, {"x": (replace(one, manifest=changed), None)})[0]
    assert [(each.name, each.one, each.other) for each in pair.changed] == [
        ("input › fill", "114", "0")
    ]
    assert pair.same > 20
    slower = replace(one.manifest, measured=measured(0.42, 25.0))
    before = replace(one, manifest=replace(one.manifest, measured=measured(0.40, 20.0)))
    later = replace(one, manifest=slower)
    pair = compare.pairs({"x": (before, None)}, {"x": (later, None)})[0]
    assert {each.name: each.change for each in pair.figures} == {
        "mAP 50–95": "better", "mAP 50": "better", "Frame time, p95": "worse", "Download": "same",
    }  # fmt: skip
    alone = compare.pairs({"x": (one, None), "y": (one, None)}, {"x": (one, None)})
    assert [(each.device_class, each.other is None) for each in alone] == [
        ("x", False),
        ("y", True),
    ]


# The audit log


def test_the_log_is_found_again_by_who_what_and_when(fleet: World, ada: httpx.Client) -> None:
    by_admin = ada.get("/audit", params={"actor": "admin", "action": "user add"}).text
    assert "vera" in by_admin
    assert ">publish<" not in by_admin
    assert "/settings/users/vera" in by_admin
    published = ada.get("/audit", params={"subject": "models/shapes/1.2/"}).text
    assert 'href="/models/shapes/releases/1.2"' in published
    assert HOSTILE not in published
    assert "No entry is like that" in ada.get("/audit", params={"actor": "nobody"}).text
    assert "No entry is like that" in ada.get("/audit", params={"until": "1000"}).text
    assert ">publish<" in ada.get("/audit", params={"since": "1000"}).text
    assert ada.get("/audit", params={"since": "soon"}).status_code == 422


def test_a_page_of_the_log_looks_at_so_many_entries(
    fleet: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "SHOWN", 3)
    with Session(fleet.context.engine) as session:
        every = [each.id for each in session.exec(select(AuditRow).order_by(col(AuditRow.id)))]
        seen, before = list[int](), None
        while True:
            found = searching.page(session, searching.Wanted(), before)
            seen += [each.id or 0 for each in found.entries]
            before = found.following
            if before is None:
                break
        assert seen == every[::-1]
        monkeypatch.setattr(searching, "LOOKED_AT", 2)
        found = searching.page(session, searching.Wanted(action="first token"), None)
        assert found.entries == ()
        assert found.following == every[-2]
        assert found.looked_back_to is not None


def test_a_time_is_found_by_halving(fleet: World) -> None:
    with Session(fleet.context.engine) as session:
        rows = session.exec(select(AuditRow).order_by(col(AuditRow.id))).all()
        middle = rows[len(rows) // 2]
        found = searching.page(session, searching.Wanted(until=middle.at), None)
        assert found.entries[0].id == middle.id
        found = searching.page(session, searching.Wanted(since=middle.at), None)
        assert found.entries[-1].id == middle.id or found.following


def test_the_chain_is_followed_and_a_change_in_it_is_found(fleet: World, ada: httpx.Client) -> None:
    said = ada.post("/audit/check").text
    assert "The chain holds" in said
    head = re.search(r"(\d+):([0-9a-f]{64})", said)
    assert head is not None
    stands = ada.post("/audit/check", data={"head": head[0]}).text
    assert "the head that you wrote down stands" in stands
    gone = ada.post("/audit/check", data={"head": f"{head[1]}:abc123"}).text
    assert "does not stand" in gone
    assert ada.post("/audit/check", data={"head": "x"}).status_code == 422
    with Session(fleet.context.engine) as session:
        session.execute(update(AuditRow).where(col(AuditRow.id) == 3).values(detail="nothing"))
        assert integrity.check(session).broken_id == 3
        session.rollback()


@pytest.mark.parametrize(
    ("action", "subject", "page"),
    [
        ("rollout halt", "ro-1", "/rollouts/ro-1"),
        ("enrol", "cam-1", "/devices/cam-1"),
        ("enrolment-tokens", "5", ""),
        ("device revoke", "cam-1", "/devices/cam-1"),
        ("device reject", "cam-1", ""),
        ("user change", "vera", "/settings/users/vera"),
        ("token create", "vera/ci", "/settings/users/vera"),
        ("sign", "model-shapes", "/trust#model-shapes"),
        ("webhook add", "wh-1", "/settings/webhooks/wh-1"),
        ("webhook remove", "wh-1", ""),
        ("publish", "models/a/1.0/x/manifest.json", "/models/a/releases/1.0"),
        ("login", "a/../b", "/settings/users/a%2F..%2Fb"),
        ("alarm", "metadata", ""),
    ],
)
def test_an_entry_leads_to_what_it_is_about(action: str, subject: str, page: str) -> None:
    assert subjects.address(action, subject) == page


# Keys and trust


def test_every_role_is_shown_with_its_keys(fleet: World, ada: httpx.Client) -> None:
    page = ada.get("/trust").text
    for role in ("root", "targets", "snapshot", "timestamp", "director"):
        assert f'<tr id="{role}">' in page
    assert page.count("held here") == 3
    assert "expires soon" not in page
    assert "Dead keys" in page
    with browser(fleet, "vera") as client:
        assert "Wait for a person" not in client.get("/trust").text


def test_a_role_warns_in_time() -> None:
    day = timedelta(days=1).total_seconds()
    assert [roles.state_of(left, None) for left in (-1.0, 29 * day, 31 * day, None)] == [
        "expired", "soon", "ok", "ok"
    ]  # fmt: skip
    # One that the server signs anew at half of its life is late when a quarter is left.
    assert [roles.state_of(left * day, 8 * day) for left in (1.9, 2.1)] == ["soon", "ok"]


# Settings
