"""The server of a trial by chaos, its releases, and the operator who never rests."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from demo.engines import export
from kedge_shared import api
from kedge_shared.manifest import read_manifest
from kedge_shared.phases import TERMINAL, Phase
from tests.sim.real_builds import DEVICE_CLASS, SIZE, write_builds
from tests.sim.traffic import Traffic
from tests.sim.world import World, world

#: Three, so that each is swept from the board before it is wanted again.
RELEASES = ("1.0", "1.1", "1.2")
_BALLAST_KB = 600


@dataclass
class Operator:
    """Rolls out one release after the other, back and forth.

    Attributes:
        world: The server.
        signed: Hashes of all engines.
        board: Which the rollouts are for.
        rollout: At hand.
    """

    world: World
    signed: set[str]
    board: str = "board-1"
    rollout: str = ""
    _next: Iterator[str] = field(default_factory=lambda: itertools.cycle(RELEASES))

    def token(self) -> str:
        """Makes an enrolment token."""
        return self.world.operator.enrolment_tokens(api.TokenRequest())[0].token

    def go_on(self) -> str:
        """Begins the next rollout; returns its release. The one before must have ended."""
        release = next(self._next)
        gate = api.GateSpec(soak_seconds=0, silence_seconds=3600, max_failure_share=1.0)
        spec = api.RolloutSpec(
            model="shapes", release=release, recall=True, tags={"board": self.board},
            stages=(api.StageSpec(percent=100, gate=gate),),
        )  # fmt: skip
        self.rollout = self.world.operator.create_rollout(spec).id
        return release

    def ended(self) -> bool:
        """Says whether the rollout at hand has been completed."""
        if not self.rollout:
            return True
        self.world.tick()
        return self.world.operator.rollout(self.rollout).state == "completed"

    def failed(self) -> api.DeploymentInfo | None:
        """Returns the deployment if it ended without proof of health."""
        rows = self.world.operator.rollout_deployments(self.rollout)
        last = max(rows, key=lambda each: each.assigned)
        return last if last.phase in TERMINAL - {Phase.CONFIRMED} else None

    def retry(self) -> None:
        """Gives the release again."""
        self.world.operator.change_rollout(self.rollout, "retry")

    def give_up(self) -> None:
        """Ends the rollout at hand, whatever has become of it."""
        if not self.ended():
            self.world.operator.change_rollout(self.rollout, "stop")
        self.rollout = ""


@contextmanager
def fleet(home: Path) -> Iterator[tuple[Operator, Traffic]]:
    """Runs a server that counts what it sends, with three releases of a real detector."""
    traffic = Traffic()
    home.mkdir(parents=True, exist_ok=True)
    model = home / "model.onnx"
    model.write_bytes(_exported())
    folders = write_builds(home / "builds", model, RELEASES, _BALLAST_KB)
    signed = {
        read_manifest((each / DEVICE_CLASS / "manifest.json").read_bytes()).engine_hash
        for each in folders
    }
    with world(home / "world", traffic.around) as found:
        for each in folders:
            found.publish_folder(each)
        yield Operator(found, signed), traffic


@cache
def _exported() -> bytes:
    """Returns the detector as ONNX; that takes seconds, and is the same for every trial."""
    with tempfile.TemporaryDirectory() as folder:
        (model,) = export(Path(folder), [SIZE])
        return model.read_bytes()
