"""Users, tokens, scopes and two people's yes, over a running server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from kedge_server.accounts.tables import ApiTokenRow
from kedge_server.database import transaction
from kedge_shared import api
from kedge_shared.accounts import (
    ApiTokenRequest,
    UserChange,
    UserRequest,
)
from kedge_shared.errors import InputError, ServiceError
from kedge_shared.operator_client import OperatorClient
from tests.server.people import acting, desk_audit, logged_in, spec, staffed, status_of
from tests.sim.world import TOKEN, World, serve


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with staffed(tmp_path_factory.mktemp("fleet")) as found:
        yield found


# Tokens


def test_a_token_is_stored_hashed_used_revoked_and_expires(fleet: World) -> None:
    client = acting(fleet, "otto")
    secret = client.http.headers["Authorization"].split()[1]
    me = client.whoami()
    assert (me.user, me.token, me.roles) == ("otto", "t", ("operator",))
    stored = b"".join(each.read_bytes() for each in (fleet.home / "server").glob("kedge.db*"))
    assert secret.encode() not in stored
    found = client.api_tokens()[-1]
    assert found.last_used is not None
    with transaction(fleet.context.engine) as session:
        row = session.get_one(ApiTokenRow, found.id)
        row.expires = time.time() - 1
        session.add(row)
    with pytest.raises(ServiceError, match="does not take this token"):
        client.devices()
    other = acting(fleet, "otto")
    ident = other.api_tokens()[-1].id
    assert other.revoke_api_token(ident).revoked is not None
    with pytest.raises(ServiceError, match="does not take this token"):
        other.devices()


def test_nobody_makes_a_token_that_is_more_than_its_maker(fleet: World) -> None:
    with pytest.raises(ServiceError, match="more than vera may do") as refused:
        acting(fleet, "vera").make_api_token(ApiTokenRequest(name="x", roles=("operator",)))
    assert status_of(refused) == 403
    # Nor a token of somebody who is more than the token.
    with pytest.raises(ServiceError, match="more than ada may do"):
        acting(fleet, "ada", "viewer").make_api_token(ApiTokenRequest(name="x", roles=("admin",)))
    with pytest.raises(ServiceError, match="administrator's to make"):
        acting(fleet, "otto").make_api_token(
            ApiTokenRequest(name="x", roles=("viewer",), user="ada")
        )
    # Nor one that leaves its maker's scope.
    made = acting(fleet, "otto", scope="tag.site==a").make_api_token(
        ApiTokenRequest(name="x", roles=("operator",), scope="tag.site==b")
    )
    with OperatorClient(fleet.url, made.token) as wider:
        assert wider.devices() == []
        assert "site==a" in wider.whoami().scope


def test_others_tokens_are_not_there(fleet: World) -> None:
    mine, other = acting(fleet, "otto"), acting(fleet, "vera")
    ident = mine.api_tokens()[-1].id
    assert {each.user for each in other.api_tokens()} == {"vera"}
    with pytest.raises(ServiceError, match="there is no token") as refused:
        other.revoke_api_token(ident)
    assert status_of(refused) == 404
    assert mine.devices()


def test_a_user_that_is_disabled_is_out_at_once_and_the_last_admin_stays(fleet: World) -> None:
    with OperatorClient(fleet.url, TOKEN) as desk:
        client = acting(fleet, "temp")
        browser = logged_in(fleet, "temp")
        assert client.devices()
        desk.disable_user("temp")
        for each in (client, browser):
            with pytest.raises(ServiceError, match="does not take this token"):
                each.devices()
        with pytest.raises(InputError, match="name or password is wrong"):
            logged_in(fleet, "temp")
        with pytest.raises(ServiceError, match="there is a user temp already"):
            desk.add_user(UserRequest(name="temp", roles=("viewer",)))
        desk.enable_user("temp")
        assert client.devices()
        desk.disable_user("ada")
        with pytest.raises(ServiceError, match="last administrator") as refused:
            desk.disable_user("admin")
        assert status_of(refused) == 409
        desk.enable_user("ada")


def test_a_role_that_is_taken_away_is_taken_from_the_tokens_too(fleet: World) -> None:
    client = acting(fleet, "otto")
    with OperatorClient(fleet.url, TOKEN) as desk:
        changed = desk.change_user("otto", UserChange(roles=("viewer",)))
        assert (changed.roles, changed.scope) == (("viewer",), "")
        try:
            with pytest.raises(ServiceError, match=r"devices\.enrol is needed"):
                client.enrolment_tokens(api.TokenRequest())
        finally:
            desk.change_user("otto", UserChange(roles=("operator",)))
        assert client.enrolment_tokens(api.TokenRequest())


def test_a_scope_that_is_drawn_later_confines_the_tokens_there_are(fleet: World) -> None:
    client = acting(fleet, "otto")
    assert client.devices()
    with OperatorClient(fleet.url, TOKEN) as desk:
        changed = desk.change_user("otto", UserChange(scope="tag.site==nowhere"))
        try:
            assert changed.roles == ("operator",)
            assert client.devices() == []
        finally:
            desk.change_user("otto", UserChange(scope=""))
        assert client.devices()
        with pytest.raises(ServiceError, match="tag"):
            desk.change_user("otto", UserChange(scope="tag.site=="))


@pytest.mark.parametrize("change", [UserChange(roles=("operator",)), UserChange(scope="name==x")])
def test_the_last_administrator_stays_one(fleet: World, change: UserChange) -> None:
    """Within a scope nobody makes users: then nobody could give it back."""
    with OperatorClient(fleet.url, TOKEN) as desk:
        desk.disable_user("ada")
        try:
            with pytest.raises(ServiceError, match="last administrator") as refused:
                desk.change_user("admin", change)
            assert status_of(refused) == 409
        finally:
            desk.enable_user("ada")


# Scopes


def test_whoever_is_confined_sees_and_acts_on_those_boards_only(fleet: World) -> None:
    sita = acting(fleet, "sita")
    assert [each.id for each in sita.devices()] == ["cam-0", "cam-1"]
    assert sita.device("cam-0").id == "cam-0"
    for act in (sita.device, sita.device_deployments, sita.device_assignment, sita.revoke_device,
                sita.clear_device):  # fmt: skip
        with pytest.raises(ServiceError, match="there is no device cam-2") as refused:
            act("cam-2")
        assert status_of(refused) == 404
    for forbidden in (
        lambda: sita.enrolment_tokens(api.TokenRequest()), sita.pending_devices,
        lambda: sita.newest_audit(10), lambda: sita.publish_metadata({}),
    ):  # fmt: skip
        with pytest.raises(ServiceError) as refused:
            forbidden()
        assert status_of(refused) == 403
    # By the token's own scope as by the user's.
    narrow = acting(fleet, "otto", scope="name==cam-2")
    assert [each.id for each in narrow.devices()] == ["cam-2"]


def test_whoever_is_confined_rolls_out_within_and_touches_no_other_rollout(fleet: World) -> None:
    sita, otto = acting(fleet, "sita"), acting(fleet, "otto")
    planned = sita.plan_rollout(spec())
    assert sorted(sum((each.devices for each in planned.stages), ())) == ["cam-0", "cam-1"]
    assert "cam-2" not in planned.skipped
    with pytest.raises(ServiceError, match="no device can take"):
        sita.create_rollout(spec(selector="tag.site==b"))
    mine = sita.create_rollout(spec())
    reached = {each.device for each in sita.rollout_deployments(mine.id)}
    assert reached == {"cam-0", "cam-1"}
    other = otto.create_rollout(spec(selector="tag.site==b"))
    assert [each.id for each in sita.rollouts()] == [mine.id]
    assert {each.id for each in otto.rollouts()} == {mine.id, other.id}
    for act in ("pause", "halt", "stop", "resume", "approve", "retry"):
        answer = sita.http.post(f"/api/v1/rollouts/{other.id}/{act}")
        assert (answer.status_code, act) == (404, act)
    for what in ("", "/deployments", "/replay"):
        assert sita.http.get(f"/api/v1/rollouts/{other.id}{what}").status_code == 404
    # A board of another site that joins is not taken along either.
    fleet.enrol("cam-9", tags={"site": "b"})
    fleet.tick()
    assert {each.device for each in sita.rollout_deployments(mine.id)} == reached
    for each in (mine, other):
        otto.http.post(f"/api/v1/rollouts/{each.id}/halt")


# Two people


def test_two_people_say_yes_and_neither_is_who_made_it(fleet: World) -> None:
    both, anna, ben = (acting(fleet, each) for each in ("both", "anna", "ben"))
    made = both.create_rollout(spec(two_person=True, selector="tag.site==a"))
    assert (made.state, made.created_by) == ("proposed", "both/t")
    assert both.rollout_deployments(made.id) == [], "no board was told anything"
    fleet.tick()
    for mine in (both, acting(fleet, "both", "approver", name="other")):
        with pytest.raises(ServiceError, match="both made rollout") as refused:
            mine.change_rollout(made.id, "approve")
        assert status_of(refused) == 403
    assert anna.change_rollout(made.id, "approve").approvals == ("anna",)
    # Another token of one person is not another person.
    assert acting(fleet, "anna", "approver", name="other").change_rollout(
        made.id, "approve"
    ).approvals == ("anna",)
    assert both.rollout(made.id).state == "proposed"
    begun = ben.change_rollout(made.id, "approve")
    assert (begun.state, begun.reason) == ("running", "started: anna and ben said yes")
    assert len(both.rollout_deployments(made.id)) == 2
    said = [each for each in desk_audit(fleet) if each[1] == "rollout approval"]
    assert said[:2] == [("ben/t", "rollout approval"), ("anna/t", "rollout approval")]
    both.http.post(f"/api/v1/rollouts/{made.id}/halt")


def test_a_stage_that_asks_wants_two_people_too(fleet: World) -> None:
    otto, anna, ben = (acting(fleet, each) for each in ("otto", "anna", "ben"))
    stage = api.StageSpec(percent=100, gate=api.GateSpec(soak_seconds=0), approval=True)
    made = otto.create_rollout(spec(two_person=True, selector="name==cam-2", stages=(stage,)))
    for each in (anna, ben):
        each.change_rollout(made.id, "approve")
    device = next(each for each in fleet.devices if each.name == "cam-2")
    device.runs = ""
    device.live()
    fleet.tick()
    assert otto.rollout(made.id).stages[0].state == "asking"
    assert anna.change_rollout(made.id, "approve").stages[0].state == "asking"
    assert ben.change_rollout(made.id, "approve").state == "completed"


def test_a_proposed_rollout_can_be_dropped(fleet: World) -> None:
    otto, anna = acting(fleet, "otto"), acting(fleet, "anna")
    made = otto.create_rollout(spec(two_person=True, selector="name==cam-0"))
    assert anna.http.post(f"/api/v1/rollouts/{made.id}/halt").json()["state"] == "stopped"
    with pytest.raises(ServiceError, match="asks for nothing"):
        anna.change_rollout(made.id, "approve")


# The first administrator


def test_the_first_token_is_the_way_back_in(fleet: World) -> None:
    with OperatorClient(fleet.url, TOKEN) as desk:
        me = desk.whoami()
        assert (me.user, me.token, me.roles) == ("admin", "first", ("admin",))
        first = next(each for each in desk.api_tokens() if each.name == "first")
        desk.revoke_api_token(first.id)
        with serve(fleet.home, fleet.trust) as (_, url):
            stays = httpx.get(f"{url}/api/v1/session", headers=desk.http.headers, timeout=60)
            assert stays.status_code == 401, "what was revoked stays revoked"
        other = "another-first-token"
        with serve(fleet.home, fleet.trust, operator_token=other) as (_, url):
            back = httpx.get(
                f"{url}/api/v1/session", headers={"Authorization": f"Bearer {other}"}, timeout=60
            )
            assert back.json()["user"] == "admin"
            assert (
                httpx.get(
                    f"{url}/api/v1/session", headers=desk.http.headers, timeout=60
                ).status_code
                == 401
            )
