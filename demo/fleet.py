"""The demo's server and boards: set up as an operator would, by commands and files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import yaml

from demo.processes import Processes, free_port, run, wait_for_server
from demo.settings import DEVICES, MODEL, DemoSettings
from kedge_shared import api
from kedge_shared.client import Client
from kedge_shared.servers import read_token

_ENROL_SECONDS = 60.0
_LOOK_SECONDS = 0.5
FINAL = frozenset({"completed", "halted"})
#: The demo's gate: nobody may fail, everybody must prove health, and stay so for a moment.
_GATE = api.GateSpec(max_failure_share=0.0, soak_seconds=3.0, silence_seconds=120.0)


class Fleet:
    """One server, five boards.

    Attributes:
        client: To the server, once it is up.

    Args:
        settings: Of the demo.
        processes: Owns everything that is started.
        camera: What the boards look at: ``source`` of their settings, without its pace.
    """

    def __init__(
        self, settings: DemoSettings, processes: Processes, camera: Mapping[str, object]
    ) -> None:
        self._settings, self._processes, self._camera = settings, processes, camera
        self.keys = settings.out / "keys"
        self._port = settings.port or free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._token = settings.out / "server" / "operator.token"
        self.client: Client

    def start_server(self) -> None:
        """Makes the keys and starts the server with the online ones."""
        run("keys", "init", "--out", str(self.keys))
        self._processes.start(
            "server", "server", "run", "--data", str(self._settings.out / "server"),
            "--trust", str(self.keys), "--port", str(self._port),
            "--tick-seconds", "0.5", "--poll-seconds", "1",
        )  # fmt: skip
        wait_for_server(self.url, self._processes)
        self.client = Client(self.url, read_token(self._token))

    def publish(self, builds: Path, policy: Path) -> None:
        """Signs and uploads a release."""
        run(
            "publish", str(builds), "--server", self.url, "--keys", str(self.keys),
            "--policy", str(policy), "--token-file", str(self._token),
        )  # fmt: skip

    def start_boards(self) -> None:
        """Starts the agents, each with a one-time token, and waits until all are enrolled.

        Raises:
            SystemExit: A board did not come up; its log was shown.
        """
        tokens = self.client.enrolment_tokens(api.TokenRequest(count=len(DEVICES)))
        for (name, device_class), token in zip(DEVICES.items(), tokens, strict=True):
            config = self._configure(name, device_class)
            env = {"KEDGE_ENROL_TOKEN": token.token}
            self._processes.start(name, "agent", "run", "--config", str(config), env=env)
        deadline = time.monotonic() + _ENROL_SECONDS
        while len(self.client.devices()) < len(DEVICES):
            if time.monotonic() > deadline:
                missing = set(DEVICES) - {each.id for each in self.client.devices()}
                raise SystemExit(f"demo: {', '.join(missing)} did not enrol:\n"
                                 f"{self._processes.tail(missing.pop())}")  # fmt: skip
            time.sleep(_LOOK_SECONDS)

    def roll_out(self, release: str, percents: tuple[float, ...]) -> str:
        """Starts a rollout and returns its identifier."""
        stages = tuple(api.StageSpec(percent=each, gate=_GATE) for each in percents)
        spec = api.RolloutSpec(model=MODEL, release=release, stages=stages)
        return self.client.create_rollout(spec).id

    def follow(
        self, rollout: str, show: Callable[[api.RolloutInfo, list[api.DeviceInfo]], None]
    ) -> api.RolloutInfo:
        """Shows a rollout until it is final and every board has come to rest."""
        for info in self._states(rollout):
            devices = self.client.devices()
            show(info, devices)
            if info.state in FINAL and all(self._rests(each) for each in devices):
                return info
        raise AssertionError("a rollout's states do not end")

    def board(self, name: str) -> Path:
        """Returns a board's folder."""
        return self._settings.out / "boards" / name

    def _states(self, rollout: str) -> Iterator[api.RolloutInfo]:
        while True:
            yield self.client.rollout(rollout)
            time.sleep(_LOOK_SECONDS)

    @staticmethod
    def _rests(device: api.DeviceInfo) -> bool:
        return device.phase.value in {"confirmed", "refused", "rolled_back", "idle"}

    def _configure(self, name: str, device_class: str) -> Path:
        folder = self.board(name)
        folder.mkdir(parents=True)
        body = {
            "server": self.url,
            "root": str(self.keys / "repository" / "1.root.json"),
            "state_dir": "state",
            "device": name,
            "device_class": device_class,
            "models": [MODEL],
            "source": {**self._camera, "fps": self._settings.fps},
            "sink": {"kind": "jsonl", "path": "frames.jsonl"},
            "poll_seconds": 1,
            "telemetry_seconds": 5,
            "shadow": {"seconds": 8, "share": 0.25},
            "probation": {"seconds": 8, "max_seconds": 60, "min_frames": 60},
        }
        path = folder / "agent.yaml"
        path.write_text(yaml.safe_dump(body, sort_keys=False))
        return path
