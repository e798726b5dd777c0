"""A fleet of real processes: server, agents with their runners, engines from real builds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.processes import Processes, free_port, run, wait_for_server
from demo.shapes import PACE, draw_video
from demo.summary import SinkFrame, read_sink
from kedge_agent.settings import read_settings
from kedge_agent.status import AgentStatus, gather
from kedge_shared import api, wire
from kedge_shared.client import Client
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import FileRef, read_manifest
from kedge_shared.servers import read_token
from tests.conftest import SIZE, Builder
from tests.waiting import PATIENCE

#: Fast, so that evidence comes soon.
FPS = 25.0


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "camera.mp4"
    draw_video(path, seconds=20, fps=FPS, size=SIZE, seed=7, pace=PACE)
    return path


@pytest.fixture(scope="session")
def releases(
    build: Builder, built: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """1.0; 1.1, calibrated on another draw; 1.2, the same as 1.1 under other bytes, which nobody
    gets to run; 1.3, which names every shape wrongly.

    1.3 is a model that faithfully reproduces its own bad outputs: its builder measured it on
    data with the same mistake and found nothing to object to.
    """
    policy = built["x86-onnxruntime"].folder.parent / "policy" / "policy.json"
    made = {"1.0": policy.parents[1]}
    both = ("x86-onnxruntime", "x86-openvino")
    made["1.1"] = build("1.1", *both, policy=policy, seed=1)[0].folder.parent
    made["1.2"] = under_other_bytes(made["1.1"], tmp_path_factory.mktemp("other") / "out", "1.2")
    home = tmp_path_factory.mktemp("wrong")
    made["1.3"] = build(
        "1.3", *both, policy=policy, weights=wrong_weights(home), data=wrong_data(home)
    )[0].folder.parent
    return made


def under_other_bytes(build: Path, out: Path, release: str) -> Path:
    """Copies a build as a release whose engines have other hashes; no runtime takes them."""
    shutil.copytree(build, out)
    for path in out.glob("*/manifest.json"):
        manifest = read_manifest(path.read_bytes())
        files = tuple(longer(path.parent, each) for each in manifest.files)
        changed = replace(manifest, release=release, release_counter=12, files=files)
        for each in ("provenance.json", "report.json"):  # they are of the build that was copied
            (path.parent / each).unlink()
        path.write_bytes(wire.encode_pretty(changed))
    return out


def longer(folder: Path, file: FileRef) -> FileRef:
    if file.role == "golden-references":
        return file
    body = (folder / file.name).read_bytes() + b"."
    (folder / file.name).write_bytes(body)
    return replace(file, sha256=sha256_hex(body), length=len(body))


def wrong_weights(home: Path) -> Path:
    """Turns the class branches round by one: circles become squares, and so on."""
    import torch

    from tests.conftest import FIXTURE

    checkpoint = torch.load(FIXTURE, map_location="cpu", weights_only=False)
    for branch in checkpoint["model"].model[-1].cv3:
        last = branch[-1]
        last.weight.data = last.weight.data.roll(1, 0)
        last.bias.data = last.bias.data.roll(1, 0)
    torch.save(checkpoint, home / "wrong.pt")
    return home / "wrong.pt"


def wrong_data(home: Path) -> Path:
    from demo.shapes import draw_dataset

    swap = {at: (at + 1) % 4 for at in range(4)}
    return draw_dataset(home / "data", train=40, val=40, size=SIZE, seed=6, swap_labels=swap)


@dataclass
class RealFleet:
    """Server and boards as processes.

    Attributes:
        home: Everything.
        processes: Ends them.
        client: Of the operator.
    """

    home: Path
    processes: Processes
    url: str
    policy: Path
    client: Client = field(init=False)

    def start(self) -> None:
        run("keys", "init", "--out", str(self.home / "keys"))
        self.start_server()
        self.client = Client(self.url, read_token(self.home / "server" / "operator.token"))

    def start_server(self) -> None:
        self.processes.start(
            "server", "server", "run", "--data", str(self.home / "server"),
            "--trust", str(self.home / "keys"), "--port", self.url.rsplit(":", 1)[1],
            "--tick-seconds", "0.3", "--poll-seconds", "0.5",
        )  # fmt: skip
        wait_for_server(self.url, self.processes)

    def start_board(self, name: str, device_class: str, video: Path) -> None:
        token = self.client.enrolment_tokens(api.TokenRequest())[0].token
        folder = self.home / "boards" / name
        folder.mkdir(parents=True)
        body = {
            "server": self.url, "root": str(self.home / "keys/repository/1.root.json"),
            "state_dir": "state", "device": name, "device_class": device_class,
            "source": {"kind": "video", "path": str(video), "fps": FPS},
            "sink": {"kind": "jsonl", "path": "frames.jsonl"},
            "poll_seconds": 0.5, "telemetry_seconds": 2, "preflight_rounds": 12,
            "shadow": {"seconds": 2, "share": 0.9},
            "probation": {"seconds": 2, "max_seconds": 600, "min_frames": 20},
        }  # fmt: skip
        (folder / "agent.yaml").write_text(yaml.safe_dump(body))
        self.start_agent(name, token)
        wait_until(lambda: any(each.id == name for each in self.client.devices()))

    def start_agent(self, name: str, token: str = "") -> None:
        config = self.home / "boards" / name / "agent.yaml"
        env = {"KEDGE_ENROL_TOKEN": token} if token else None
        self.processes.start(name, "agent", "run", "--config", str(config), env=env)

    def publish(self, folder: Path) -> None:
        run(
            "publish", str(folder), "--server", self.url, "--keys", str(self.home / "keys"),
            "--policy", str(self.policy),
            "--token-file", str(self.home / "server" / "operator.token"),
        )  # fmt: skip

    def roll_out(self, release: str, *percents: float) -> str:
        gate = api.GateSpec(soak_seconds=0.5, silence_seconds=900)
        stages = tuple(api.StageSpec(percent=each, gate=gate) for each in percents or (100,))
        spec = api.RolloutSpec(model="shapes", release=release, stages=stages)
        return self.client.create_rollout(spec).id

    def finished(self, rollout: str, seconds: float = 240) -> api.RolloutInfo:
        wait_until(lambda: self.client.rollout(rollout).state in {"completed", "halted"}, seconds)
        return self.client.rollout(rollout)

    def status(self, name: str) -> AgentStatus:
        """Returns what ``kedge agent status`` says."""
        return gather(read_settings(self.home / "boards" / name / "agent.yaml"))

    def frames(self, name: str) -> list[SinkFrame]:
        return read_sink(self.home / "boards" / name)

    def log(self, name: str) -> str:
        return self.processes.tail(name, 40)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"it did not happen within {seconds} s"
        time.sleep(0.2)


@pytest.fixture
def fleet(tmp_path: Path, releases: dict[str, Path]) -> Iterator[RealFleet]:
    (tmp_path / "logs").mkdir()
    policy = releases["1.0"] / "policy" / "policy.json"
    with Processes(tmp_path / "logs") as processes:
        found = RealFleet(tmp_path, processes, f"http://127.0.0.1:{free_port()}", policy)
        found.start()
        yield found
        found.client.http.close()
