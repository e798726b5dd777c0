"""The fleet as a whole, pages of devices, tags: over a running server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kedge_server.fleet.summary import Kind, classes
from kedge_shared import fleet as fleet_module
from kedge_shared.errors import ServiceError
from kedge_shared.fleet import TagsChange, TagsChanged
from kedge_shared.phases import Phase
from tests.server.people import acting, desk_audit, staffed, status_of
from tests.sim.world import World


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with staffed(tmp_path_factory.mktemp("fleet")) as found:
        yield found


def kind(**changes: object) -> Kind:
    usual = {
        "device_class": "a", "release": "1.0", "assigned": "1.0", "phase": "confirmed",
        "lately": True, "today": True, "silent": False, "suspected": False,
    }  # fmt: skip
    return Kind(**(usual | changes))  # type: ignore[arg-type]


def test_boards_are_told_by_class() -> None:
    a, b = classes({
        kind(): 3, kind(phase="rolled_back", assigned="1.1", lately=False): 2,
        kind(phase="shadow", assigned="1.1", silent=True, lately=False, today=False): 1,
        kind(device_class="b", release="", assigned="", phase="idle", suspected=True): 4,
    })  # fmt: skip
    assert (a.device_class, a.devices, a.seen_5m, a.seen_1d) == ("a", 6, 3, 5)
    assert (a.silent, a.at_work, a.behind) == (1, 1, 2)
    assert a.phases == {"confirmed": 3, "rolled_back": 2, "shadow": 1}
    assert (a.releases, a.assigned) == ({"1.0": 6}, {"1.0": 3, "1.1": 3})
    assert (b.devices, b.suspected_clones, b.behind, b.assigned) == (4, 4, 0, {})


def test_the_fleet_says_how_it_is(fleet: World) -> None:
    board = fleet.devices[0]
    board.send(board.report(Phase.CONFIRMED, release="1.0"))
    found = fleet.operator.fleet()
    (only,) = found.classes
    assert (only.device_class, only.devices) == ("x86-onnxruntime", 3)
    assert set(found.expires) >= {"root", "targets", "snapshot", "timestamp"}
    assert min(found.expires.values()) > time.time()
    assert (found.pending, found.alarm, found.revoked) == (0, "", 0)


def test_who_is_confined_sees_its_part_alone(fleet: World) -> None:
    found = acting(fleet, "sita", name="fleet").fleet()
    assert sum(each.devices for each in found.classes) == 2
    assert found.pending is None


def test_devices_come_in_pages(fleet: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fleet.operator.http.get("/api/v1/devices", params={"after": "cam-0", "most": 1})
    assert [each["id"] for each in asked.json()] == ["cam-1"]
    monkeypatch.setattr("kedge_shared.client.PAGE_MOST", 1)
    assert [each.id for each in fleet.operator.devices()] == ["cam-0", "cam-1", "cam-2"]
    assert fleet_module.PAGE_MOST == 1000
    too_many = fleet.operator.http.get("/api/v1/devices", params={"most": 1001})
    assert too_many.status_code == 422


def test_devices_are_found_by_selector_within_ones_scope(fleet: World) -> None:
    def names(client: object, selector: str) -> list[str]:
        return [each.id for each in client.devices({"selector": selector})]  # type: ignore[attr-defined]

    assert names(fleet.operator, "tag.site==b") == ["cam-2"]
    sita = acting(fleet, "sita", name="selector")
    assert names(sita, "tag.site==b") == []
    assert names(sita, "name==cam-*") == ["cam-0", "cam-1"]
    with pytest.raises(ServiceError, match="at position 9"):
        names(fleet.operator, "tag.site=b")


def test_tags_are_set_removed_audited_and_selectors_see_them(fleet: World) -> None:
    asked = TagsChange(devices=("cam-2",), set={"line": "7"})
    for changed in (1, 0):
        assert fleet.operator.tag_devices(asked) == TagsChanged(devices=1, changed=changed)
    assert fleet.operator.device("cam-2").tags == {"site": "b", "line": "7"}
    assert [each.id for each in fleet.operator.devices({"selector": "tag.line==7"})] == ["cam-2"]
    fleet.operator.tag_devices(TagsChange(devices=("cam-2",), drop=("line", "never")))
    assert fleet.operator.device("cam-2").tags == {"site": "b"}
    assert ("admin/first", "device tags") in desk_audit(fleet)
    with pytest.raises(ServiceError) as refused:
        acting(fleet, "vera").tag_devices(TagsChange(devices=("cam-2",), set={"a": "b"}))
    assert status_of(refused) == 403
    for wrong in ({"set": {"no blanks": "x"}}, {"set": {"a": ""}}, {"set": {"a\n": "x"}}):
        body = {"devices": ["cam-2"], **wrong}
        answer = fleet.operator.http.post("/api/v1/device-tags", json=body)
        assert answer.status_code == 422, wrong


def test_who_is_confined_cannot_tag_a_board_out_of_its_part(fleet: World) -> None:
    sita = acting(fleet, "sita", name="tags")
    sita.tag_devices(TagsChange(devices=("cam-0",), set={"line": "1"}))
    assert sita.device("cam-0").tags["line"] == "1"
    mine = ("cam-0",)
    for change in (TagsChange(devices=mine, set={"site": "b"}),
                   TagsChange(devices=mine, drop=("site",))):  # fmt: skip
        with pytest.raises(ServiceError, match="would leave your part of the fleet") as refused:
            sita.tag_devices(change)
        assert status_of(refused) == 409
    assert fleet.operator.device("cam-0").tags["site"] == "a", "nothing was changed"
    with pytest.raises(ServiceError) as refused:
        sita.tag_devices(TagsChange(devices=("cam-0", "cam-2"), set={"site": "a"}))
    assert status_of(refused) == 404, "a board of others is not there"
