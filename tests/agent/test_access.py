"""A board that comes in without a token, stays in, changes its key, and what interrupts that."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from typer.testing import CliRunner

from kedge_agent import access, enrolment, identity
from kedge_agent.access import Access
from kedge_agent.cli import app
from kedge_agent.server_client import ServerClient
from kedge_agent.settings import AgentSettings
from kedge_server.devices.access import PREFIX
from kedge_shared import signing, wire
from kedge_shared.api import TokenRequest
from kedge_shared.errors import ServiceError, TrustError
from kedge_shared.operator_client import OperatorClient
from kedge_shared.protocol import Enrolled
from kedge_shared.trust import Pinned, check_manifest
from tests.agent.test_settings import settings_of
from tests.shared import samples
from tests.sim.board import SimBoard
from tests.sim.world import TOKEN, World, serve, world

T = TypeVar("T")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("fleet")) as found:
        yield found


@pytest.fixture
def board(
    fleet: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AgentSettings:
    """A board of its own for each test."""
    monkeypatch.setattr(enrolment.facts, "gather", samples.facts)
    monkeypatch.delenv(identity.TOKEN_ENV, raising=False)
    name = f"cam-{abs(hash(request.node.name)) % 10**8}"
    return settings_of(tmp_path, server=fleet.url, device=name)


def run(server: str, work: Callable[[ServerClient], Awaitable[T]], **options: Any) -> T:
    async def connected() -> T:
        async with ServerClient(server, **options) as client:
            return await work(client)

    return asyncio.run(connected())


def enrol(fleet: World, board: AgentSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    token = fleet.operator.enrolment_tokens(TokenRequest())[0].token
    monkeypatch.setenv(identity.TOKEN_ENV, token)
    run(fleet.url, lambda client: enrolment.enrolled(board, client))


def poll(board: AgentSettings, url: str) -> str:
    """Enters and polls as the updater does; returns the token that was taken."""

    async def work(client: ServerClient) -> str:
        access.let_in(await enrolment.enrolled(board, client), client, "updater")
        await client.poll("", 0)
        return client.bearer()

    return run(url, work)


def test_a_board_without_a_token_waits_until_a_person_says_yes(
    fleet: World, board: AgentSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(client: ServerClient) -> None:
        entering = asyncio.ensure_future(enrolment.enrolled(board, client))
        with OperatorClient(fleet.url, TOKEN) as desk:
            while not desk.pending_devices():
                await asyncio.sleep(0.05)
            assert not entering.done()
            (waits,) = desk.pending_devices()
            desk.approve_device(waits.fingerprint)
        me = await asyncio.wait_for(entering, 60)
        assert (me.device, me.token) == (board.device, "")

    run(fleet.url, work)
    mine = identity.device_key(board.state_dir).public_key.keyid
    assert f"waits for approval: `kedge device approve {mine}`" in capsys.readouterr().err
    assert poll(board, fleet.url).startswith(PREFIX)


def test_a_token_is_fetched_anew_at_half_its_life_and_when_it_is_not_taken(
    fleet: World, board: AgentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(fleet, board, monkeypatch)
    now = [1000.0]
    monkeypatch.setattr(access.time, "monotonic", lambda: now[0])

    async def work(client: ServerClient) -> list[str]:
        me = identity.load(board.state_dir)
        assert me is not None
        renewal = Access(me.signer, me.device, "updater")
        client.keep_access(renewal)
        seen = []
        for after in (0, 1799, 2):
            now[0] += after
            await client.poll("", 0)
            seen.append(client.bearer())
        client.authorise(seen[-1][:-1] + "~")
        await client.poll("", 0)
        assert client.bearer() != seen[-1][:-1] + "~"
        return seen

    first, same, later = run(fleet.url, work)
    assert first == same
    assert later.startswith(PREFIX)
    assert not access.wants_key_change(board.state_dir)


def test_a_board_in_1970_comes_in(
    fleet: World, board: AgentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(fleet, board, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(access.time, "time", lambda: 3600.0)
        # Only the board's: the server is in another thread and looks at its own clock.
        assert poll(replace(board), fleet.url)


def test_a_refusal_is_told_and_not_asked_about_for_ever(
    fleet: World, board: AgentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(fleet, board, monkeypatch)
    with OperatorClient(fleet.url, TOKEN) as desk:
        desk.revoke_device(board.device)
    with pytest.raises(ServiceError, match="was revoked") as refused:
        poll(board, fleet.url)
    assert refused.value.status == 403


def new_key(board: AgentSettings) -> str:
    config = board.state_dir.parent / "agent.yaml"
    result = CliRunner().invoke(app, ["new-key", "--config", str(config)])
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_a_board_changes_its_key_when_it_is_told_to(
    fleet: World, board: AgentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(fleet, board, monkeypatch)
    fresh = new_key(board)
    assert access.wants_key_change(board.state_dir)
    poll(board, fleet.url)
    assert identity.device_key(board.state_dir).public_key.keyid == fresh
    assert fleet.operator.device(board.device).fingerprint == fresh
    assert not access.wants_key_change(board.state_dir)


@pytest.mark.parametrize("at", ["before the answer", "before the rename"])
def test_a_crash_between_the_servers_yes_and_ours_is_no_loss(
    fleet: World, board: AgentSettings, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    enrol(fleet, board, monkeypatch)
    fresh = new_key(board)

    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    real = ServerClient.change_key

    async def taken_and_lost(client: ServerClient, envelope: dict[str, Any]) -> None:
        await real(client, envelope)
        die()

    with monkeypatch.context() as patch:
        if at == "before the answer":
            patch.setattr(ServerClient, "change_key", taken_and_lost)
        else:
            patch.setattr(access, "settle", die)
        with pytest.raises(KeyboardInterrupt):
            poll(board, fleet.url)
    assert fleet.operator.device(board.device).fingerprint == fresh
    assert identity.device_key(board.state_dir).public_key.keyid != fresh
    poll(board, fleet.url)
    assert identity.device_key(board.state_dir).public_key.keyid == fresh


def test_a_server_that_is_away_or_refuses_leaves_the_key_as_it_is(
    fleet: World, board: AgentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(fleet, board, monkeypatch)
    old = identity.device_key(board.state_dir).public_key.keyid
    new_key(board)

    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async def enter(client: ServerClient) -> str:
        return (await enrolment.enrolled(board, client)).signer.public_key.keyid

    assert run(fleet.url, enter, transport=httpx.MockTransport(away)) == old
    assert access.wants_key_change(board.state_dir), "it is tried again"

    def older(_: httpx.Request) -> httpx.Response:
        return httpx.Response(404, stream=httpx.ByteStream(b"{}"))

    assert run(fleet.url, enter, transport=httpx.MockTransport(older)) == old
    assert not access.wants_key_change(board.state_dir)
    assert poll(board, fleet.url)


def test_a_restarted_server_takes_the_tokens_it_gave(
    fleet: World, board: AgentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(fleet, board, monkeypatch)
    token = poll(board, fleet.url)
    with serve(fleet.home, fleet.trust) as (_, url):
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{url}/api/v1/device/poll", headers=headers).status_code == 200


def test_a_board_of_an_older_agent_keeps_its_lasting_token_until_its_key_changes(
    fleet: World, board: AgentSettings
) -> None:
    older = fleet.enrol(board.device)
    board.state_dir.mkdir(mode=0o700, exist_ok=True)
    signer = older.signer
    signing.save_private_key(signer, board.state_dir / "device.key")
    token = older.http.headers["Authorization"].split()[1]
    (board.state_dir / "identity.json").write_bytes(
        wire.encode(Enrolled(device=board.device, token=token))
    )
    assert poll(board, fleet.url) == token
    new_key(board)
    assert poll(board, fleet.url).startswith(PREFIX)
    assert older.poll().status_code == 401


def test_a_factory_learns_the_fingerprint_that_the_board_will_have(board: AgentSettings) -> None:
    config = str(board.state_dir.parent / "agent.yaml")
    said = [CliRunner().invoke(app, ["fingerprint", "--config", config]).output for _ in range(2)]
    assert said[0] == said[1] == identity.device_key(board.state_dir).public_key.keyid + "\n"
    refused = CliRunner().invoke(app, ["new-key", "--config", config])
    assert "not enrolled" in str(refused.exception)


@pytest.mark.parametrize(
    ("models", "taken"), [((), True), (("shapes",), True), (("faces", "pcb"), False)]
)
def test_a_model_that_is_not_on_the_boards_list_is_refused(
    models: tuple[str, ...], taken: bool
) -> None:
    manifest, policy = samples.manifest(), samples.policy()
    pinned = Pinned(
        device="cam-1", key_id="k", device_class=manifest.device_class, models=models,
        workload="main",
    )  # fmt: skip
    if taken:
        check_manifest(manifest, policy, manifest.target_path, pinned)
        return
    with pytest.raises(TrustError, match="not on this device's list"):
        check_manifest(manifest, policy, manifest.target_path, pinned)


def test_an_updater_ends_to_be_started_anew_with_another_key(
    fleet: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = SimBoard(fleet, tmp_path / "sim", monkeypatch, name="cam-sim")
    folder, fresh = sim.settings.state_dir, signing.generate()

    async def work() -> None:
        async with sim._running() as (_, updater):
            while fleet.context.index.key_of("cam-sim") is None:
                await asyncio.sleep(0.05)
            assert not updater.done()
            signing.save_private_key(fresh, access.next_key(folder))
            await asyncio.wait_for(asyncio.shield(updater), 120)

    asyncio.run(work())
    assert access.wants_key_change(folder)
    sim.run(lambda _: not access.wants_key_change(folder))
    assert fleet.operator.device("cam-sim").fingerprint == fresh.public_key.keyid


def test_what_was_built_here_opens_after_a_change_of_key(tmp_path: Path) -> None:
    """The plan that serves is sealed with a key that stays, or the board would have no engine."""
    old, before = identity.device_key(tmp_path), identity.sealer(tmp_path)
    assert before is not None
    signing.save_private_key(signing.generate(), access.next_key(tmp_path))
    access.next_key(tmp_path).replace(tmp_path / "device.key")
    assert identity.device_key(tmp_path).public_key != old.public_key
    assert identity.sealer(tmp_path) == before
    assert (tmp_path / "seal.key").stat().st_mode & 0o077 == 0


def test_a_disk_that_takes_no_key_keeps_no_board_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(signing, "save_private_key", full)
    assert identity.sealer(tmp_path) is None
