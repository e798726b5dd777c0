"""A real server over a temporary folder, real keys, and builds whose engines are mere bytes."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import fastapi.routing
import uvicorn
from sqlalchemy import update
from sqlmodel import col

from kedge_builder.publishing import keys
from kedge_builder.publishing.keyring import Keyring
from kedge_builder.publishing.publish import gather, publish
from kedge_builder.publishing.repository import TrustedState
from kedge_builder.report.provenance import provenance
from kedge_server import scheduler
from kedge_server.app import create_app, open_context
from kedge_server.console.pages import PAGES
from kedge_server.context import Context
from kedge_server.database import connect, transaction, upgrade
from kedge_server.rollouts.tables import DeploymentRow
from kedge_server.settings import ServerSettings
from kedge_shared import api, wire
from kedge_shared.device_classes import Budgets
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import FileRef, Golden, Override
from kedge_shared.operator_client import OperatorClient
from kedge_shared.policy import ModelPolicy
from tests.shared import samples
from tests.sim.device import SimDevice
from tests.waiting import PATIENCE

TOKEN = "operator-token-for-tests"
CLASSES = ("x86-onnxruntime", "x86-openvino")


def write_build(
    out: Path,
    release: str,
    counter: int,
    *,
    classes: tuple[str, ...] = ("x86-onnxruntime",),
    policy: ModelPolicy | None = None,
    override: str = "",
    engine: bytes = b"",
    budgets: Budgets | None = None,
    report: Mapping[str, object] | None = None,
    **changes: object,
) -> Path:
    """Writes what ``kedge build`` would, with bytes instead of engines; returns its folder.

    ``report`` is what is another way in ``report.json``; ``None``: none is written. ``changes`` are
    fields of the manifest.
    """
    golden = b"a picture"
    policy = policy or samples.policy()
    frame = replace(policy.golden[0], sha256=sha256_hex(golden), length=len(golden))
    policy = replace(policy, golden=(frame,))
    (out / "policy" / "golden").mkdir(parents=True, exist_ok=True)
    (out / "policy" / "golden" / frame.name).write_bytes(golden)
    (out / "policy" / "policy.json").write_bytes(wire.encode_pretty(policy))
    for device_class in classes:
        folder = out / device_class
        folder.mkdir(exist_ok=True)
        body = engine or f"engine {release} for {device_class}".encode() * 1000
        references = f"golden {release} {device_class}".encode()
        (folder / "model.onnx").write_bytes(body)
        (folder / "golden.json").write_bytes(references)
        manifest = replace(
            samples.manifest(),
            release=release,
            release_counter=counter,
            device_class=device_class,
            files=(
                FileRef(role="engine", name="model.onnx", sha256=sha256_hex(body),
                        length=len(body)),
                FileRef(role="golden-references", name="golden.json",
                        sha256=sha256_hex(references), length=len(references)),
            ),
            golden=Golden(references=sha256_hex(references)),
            budgets=budgets or samples.manifest().budgets,
            overrides=(Override(budget="latency_p95_ms", measured=20, limit=10, reason=override),)
            if override
            else (),
            **changes,  # type: ignore[arg-type]
        )  # fmt: skip
        written = wire.encode_pretty(manifest)
        (folder / "manifest.json").write_bytes(written)
        (folder / "provenance.json").write_bytes(provenance(manifest, written, ()))
        if report is not None:
            body = wire.encode_pretty(samples.report_json(manifest, **report))
            (folder / "report.json").write_bytes(body)
    return out


@dataclass
class World:
    """A running server and the people around it.

    Attributes:
        home: Everything.
        trust: Keys.
        context: The server's parts, to make time pass.
        url: Address.
        operator: Client.
    """

    home: Path
    trust: keys.KeySet
    context: Context
    url: str
    operator: OperatorClient
    devices: list[SimDevice] = field(default_factory=list)

    def publish(self, release: str, counter: int, **options: object) -> Path:
        """Builds, signs and publishes a release."""
        folder = write_build(self.home / "builds" / release, release, counter, **options)  # type: ignore[arg-type]
        self.publish_folder(folder)
        return folder

    def publish_folder(self, folder: Path) -> None:
        scratch = self.home / "scratch"
        scratch.mkdir(exist_ok=True)
        publish(
            gather([folder]), self.operator, self.publisher(),
            Keyring.load(self.trust.offline), lambda *_: None, scratch,
        )  # fmt: skip

    def publisher(self, name: str = "publisher") -> TrustedState:
        return TrustedState(self.home / name, self.trust.root, self.url, self.operator.http)

    def enrol(
        self, name: str, device_class: str = "x86-onnxruntime", **options: object
    ) -> SimDevice:
        """Enrols a simulated board."""
        token = self.operator.enrolment_tokens(api.TokenRequest())[0].token
        device = SimDevice(self.url, name, device_class, self.trust.root, **options)
        device.enrol(token)
        self.devices.append(device)
        return device

    def roll_out(self, release: str, *percents: float, **gate: float) -> api.RolloutInfo:
        """Starts a rollout with gates that need no soak."""
        spec = api.GateSpec(**{"soak_seconds": 0, **gate})  # type: ignore[arg-type]
        stages = tuple(api.StageSpec(percent=each, gate=spec) for each in percents or (100,))
        return self.operator.create_rollout(
            api.RolloutSpec(model="shapes", release=release, stages=stages)
        )

    def tick(self) -> None:
        """What the scheduler does when its time comes; looks are due whatever they cost here."""
        self.context.pace.forget_others(set())
        scheduler.tick(self.context)

    def let_pass(self, seconds: float) -> None:
        """Makes every assignment so much older; nobody was heard of in between."""
        with transaction(self.context.engine) as session:
            session.execute(
                update(DeploymentRow).values(assigned=col(DeploymentRow.assigned) - seconds)
            )


def _look_at_routes_once() -> None:
    """Lets the servers of this process share what FastAPI makes of the routes of each router.

    It looks at all of them anew for every application that includes them, at the first requests.
    A process usually has one; here they are hundreds, and most of their time went there.
    """
    for page in PAGES:
        object.__setattr__(page, "router", cache(page.router))  # several parts, joined anew
    kind = getattr(fastapi.routing, "_EffectiveRouteContext", None)
    if kind is None:
        return  # a FastAPI that does it otherwise
    made: Callable[..., Any] = kind.from_api_route
    known: dict[tuple[int, str, bool], Any] = {}

    def shared(*, original_route: Any, include_context: Any) -> Any:
        # A page's router is looked at within its page too, where nobody hides it from the schema.
        path, shown = include_context.path_for(original_route), include_context.include_in_schema
        key = id(original_route), path, shown
        if key not in known:
            known[key] = made(original_route=original_route, include_context=include_context)
        return known[key]

    kind.from_api_route = staticmethod(shared)


_look_at_routes_once()

#: Stands between uvicorn and the application: counts, or gets in the way.
Around = Callable[[Any], Any]


@contextmanager
def world(home: Path, around: Around = lambda app: app, **settings: object) -> Iterator[World]:
    """Runs a server on a free port of this machine."""
    trust = keys.create(home / "trust")
    with (
        serve(home, trust, around, **settings) as (context, url),
        OperatorClient(url, TOKEN) as operator,
    ):
        found = World(home, trust, context, url, operator)
        yield found
        for each in found.devices:
            each.http.close()


@contextmanager
def serve(
    home: Path, trust: keys.KeySet, around: Around = lambda app: app, **settings: object
) -> Iterator[tuple[Context, str]]:
    """Runs a server over ``home/server``; it may be run again over the same folder."""
    options = {"tick_seconds": 300, "poll_seconds": 0.2, "operator_token": TOKEN} | settings
    if not options.get("database") and "KEDGE_SERVER_DATABASE" not in os.environ:
        _begin_with_tables(home / "server" / "kedge.db")
    context = open_context(
        ServerSettings(data=home / "server", trust=trust.online.parent, port=0, **options)  # type: ignore[arg-type]
    )
    listening = socket.create_server(("127.0.0.1", int(str(options.get("port", 0)))))
    server = uvicorn.Server(uvicorn.Config(around(create_app(context)), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        _wait_until_up(url)
        yield context, url
    finally:
        server.should_exit = True
        thread.join(timeout=PATIENCE)
        listening.close()


def _begin_with_tables(database: Path) -> None:
    """Puts a migrated database in place: every migration anew takes longer than most tests."""
    if not database.exists():
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database.write_bytes(_migrated())


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "kedge.db"
        engine = connect(database)
        upgrade(engine)
        engine.dispose()
        return database.read_bytes()


def _wait_until_up(url: str) -> None:
    """Its socket listens already: the first question waits until somebody answers it."""
    with urllib.request.urlopen(f"{url}/healthz", timeout=60):
        pass
