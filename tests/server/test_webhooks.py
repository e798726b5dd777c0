"""Webhooks: signed, sent until they arrive, to nobody who could not be called anyway."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select, update

from kedge_server.database import transaction
from kedge_server.events import service
from kedge_server.webhooks import delivery, outbox
from kedge_server.webhooks.retry import judge, wait_seconds
from kedge_server.webhooks.tables import DeliveryRow
from kedge_shared.errors import ServiceError, TrustError
from kedge_shared.events import DeliveryInfo, WebhookInfo, WebhookRequest, sign, verify
from tests.sim.world import World, world

HERE = (ip_network("127.0.0.0/8"),)


@dataclass
class Receiver:
    """Somebody's program.

    Attributes:
        url: Where it listens.
        answers: Statuses to give, in order; then 200.
        got: Headers (lower case) and bodies.
    """

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {key.lower(): value for key, value in self.headers.items()}
            receiver.got.append((headers, body))
            self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
            self.send_header("Location", f"{receiver.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def open_world(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, egress_networks=HERE, webhook_attempts=3, webhook_failures=2) as found:
        yield found


def add(running: World, url: str, *kinds: str) -> WebhookInfo:
    request = WebhookRequest(url=url, kinds=kinds or ("*",))
    return running.operator.add_webhook(request)


def emit(running: World, kind: str, subject: str = "ro-1") -> None:
    with transaction(running.context.engine) as session:
        service.emit(session, kind, subject, {"reason": "why"}, 1.0)


def send(running: World, rounds: int = 1) -> None:
    """Sends what is due, and so often what was put off."""
    for _ in range(rounds):
        delivery.deliver(running.context)
        with transaction(running.context.engine) as session:
            session.execute(
                update(DeliveryRow).where(col(DeliveryRow.state) == "pending").values(due=0)
            )


def log(running: World, hook: WebhookInfo) -> list[DeliveryInfo]:
    return running.operator.deliveries(hook.id)


def test_an_event_arrives_signed(open_world: World, receiver: Receiver) -> None:
    hook = add(open_world, receiver.url, "rollout.*")
    emit(open_world, "rollout.halted")
    emit(open_world, "device.confirmed")
    send(open_world)
    ((headers, body),) = receiver.got
    said = json.loads(body)
    assert (said["type"], said["data"]["subject"]) == ("rollout.halted", "ro-1")
    now = float(headers["webhook-timestamp"])
    verify(hook.secret, headers, body, now)
    for wrong in (
        lambda: verify(hook.secret, headers, body + b" ", now),
        lambda: verify(hook.secret, headers | {"webhook-id": "other"}, body, now),
        lambda: verify("whsec_AAAA", headers, body, now),
        lambda: verify(hook.secret, headers, body, now + 301),
    ):
        with pytest.raises(TrustError):
            wrong()
    (sent,) = log(open_world, hook)
    assert (sent.state, sent.status, sent.attempts) == ("delivered", 200, 1)
    assert sent.id == headers["webhook-id"]


def test_a_test_goes_to_one_webhook_whatever_it_wants(
    open_world: World, receiver: Receiver
) -> None:
    hook, other = add(open_world, receiver.url, "gate.*"), add(open_world, receiver.url, "*")
    queued = open_world.operator.test_webhook(hook.id)
    send(open_world)
    ((headers, body),) = receiver.got
    verify(hook.secret, headers, body, float(headers["webhook-timestamp"]))
    assert json.loads(body)["type"] == "webhook.test"
    assert [(each.id, each.state) for each in log(open_world, hook)] == [(queued.id, "delivered")]
    assert log(open_world, other) == []


def test_the_signature_is_the_specifications() -> None:
    """The example that the specification's libraries are tested with."""
    secret, name = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    signed = sign(secret, name, 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_it_is_tried_again_under_the_same_id_until_it_arrives(
    open_world: World, receiver: Receiver
) -> None:
    receiver.answers = [500, 302, 200]
    hook = add(open_world, receiver.url)
    emit(open_world, "rollout.halted")
    delivery.deliver(open_world.context)
    delivery.deliver(open_world.context)
    assert len(receiver.got) == 1, "not before its time"
    (waiting,) = log(open_world, hook)
    assert (waiting.state, waiting.status) == ("pending", 500)
    send(open_world, 3)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len(receiver.got) == 3, "a redirection is an answer, and is not followed"
    assert [each.state for each in log(open_world, hook)] == ["delivered"]


def test_what_nobody_takes_is_given_up_and_then_the_webhook_too(
    open_world: World, receiver: Receiver
) -> None:
    receiver.answers = [500] * 100
    hook = add(open_world, receiver.url)
    for _ in range(3):
        emit(open_world, "rollout.halted")
    # The server's own scheduler takes turns with us.
    for _ in range(20):
        send(open_world)
        (info,) = open_world.operator.webhooks()
        if not info.enabled:
            break
    assert not info.enabled
    assert "answered 500" in info.reason
    emit(open_world, "rollout.paused")
    held = len(receiver.got)
    send(open_world)
    assert len(receiver.got) == held, "it is disabled"
    given_up = [each for each in log(open_world, hook) if each.state == "given_up"]
    assert len(given_up) >= 2
    with pytest.raises(ServiceError, match="disabled"):
        open_world.operator.redeliver(given_up[0].id)
    receiver.answers = []
    open_world.operator.enable_webhook(hook.id)
    open_world.operator.redeliver(given_up[0].id)
    send(open_world)
    assert receiver.got[-1][0]["webhook-id"] in {each.id for each in log(open_world, hook)}
    assert next(e for e in log(open_world, hook) if e.id == given_up[0].id).state == "delivered"


def test_a_sender_that_died_in_the_midst_is_taken_over(
    open_world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim runs out, and of two servers one takes it on."""
    add(open_world, receiver.url)
    emit(open_world, "rollout.halted")

    def killed(*_: object) -> int:
        raise SystemExit

    monkeypatch.setattr(delivery, "call", killed)
    with pytest.raises(SystemExit):
        delivery.deliver(open_world.context)
    monkeypatch.undo()
    delivery.deliver(open_world.context)
    assert receiver.got == [], "the claim still holds"
    with transaction(open_world.context.engine) as session:
        row = session.exec(select(DeliveryRow)).one()
        assert row.attempts == 1
        assert outbox.claim(session, row, 9e9)
        assert not outbox.claim(session, row, 9e9), "the other one has it"
    send(open_world, 2)
    assert [each.state for each in log(open_world, open_world.operator.webhooks()[0])]
    assert len(receiver.got) == 1


def test_the_secret_is_shown_once_and_stands_in_no_log(
    open_world: World, receiver: Receiver
) -> None:
    hook = add(open_world, f"{receiver.url}?token=theirs")
    assert hook.secret.startswith("whsec_")
    listed = open_world.operator.http.get("/api/v1/webhooks").text
    audit = open_world.operator.http.get("/api/v1/audit").text
    assert hook.id in listed
    assert hook.secret not in listed + audit
    assert "theirs" not in audit
    open_world.operator.remove_webhook(hook.id)
    emit(open_world, "rollout.halted")
    send(open_world)
    assert receiver.got == []


def test_by_default_this_machine_is_not_called(running: World, receiver: Receiver) -> None:
    hook = add(running, receiver.url)
    emit(running, "rollout.halted")
    send(running)
    assert receiver.got == []
    (sent,) = log(running, hook)
    assert sent.state == "given_up"
    assert "127.0.0.1, which is not to be called" in sent.reason


def test_waits_grow_to_hours_and_attempts_end() -> None:
    waits = [wait_seconds(at, 0.5) for at in range(1, 13)]
    assert waits == sorted(waits)
    assert waits[0] == 5
    assert max(waits) == 4 * 3600
    assert 18 * 3600 < sum(waits[:-1]) < 30 * 3600, "about a day"
    assert judge(200, "", 1, 12, 0, 0).state == "delivered"
    assert judge(None, "away", 1, 12, 0, 0).state == "pending"
    assert judge(500, "", 12, 12, 0, 0).state == "given_up"
    assert judge(410, "", 1, 12, 0, 0).gone
