"""``make demo``: build, sign, roll out, hot-swap, take back, on one machine."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from demo.fleet import Fleet
from demo.processes import Processes
from demo.releases import Releases
from demo.settings import DEVICES, DemoSettings
from demo.shapes import PACE, draw_video
from demo.summary import measure, percentile, read_sink, release_row, spans_of
from demo.train import FIXTURE
from demo.view import View, summary_table
from kedge_agent.disk import write_whole
from kedge_agent.journal import open_read_only
from kedge_shared import api
from kedge_shared.errors import KedgeError

HERE = Path(__file__).parent
_ALL, _STAGED = (100.0,), (20.0, 100.0)
_SHOWN = (
    "frames_processed", "frames_lost_to_updates", "frames_lost_elsewhere",
    "swap_longest_gap_ms", "steady_p99_ms", "bytes_downloaded", "seconds",
)  # fmt: skip
_REASON = "larger input on trial: the boards shall judge it"


def main() -> int:
    """Runs the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--weights", type=Path, default=FIXTURE, help="your own model (.pt)")
    parser.add_argument("--data", type=Path, help="your own data.yaml")
    parser.add_argument("--input-size", type=int, help="pixels; 160, or 320 for your own model")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    given = parser.parse_args()
    size = given.input_size or (160 if given.weights == FIXTURE else 320)
    settings = DemoSettings(
        out=given.out.resolve(), summary=HERE / "summary.json", weights=given.weights,
        data=given.data, input_size=size, large_size=int(size * 3.2) // 32 * 32,
    )  # fmt: skip
    # A closed terminal and `kill` end it as Ctrl-C does: its processes with it.
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.default_int_handler)
    try:
        return _run(settings)
    except KeyboardInterrupt:
        print("demo: stopped, nothing is left running", file=sys.stderr)
        return 130
    except KedgeError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code


def _run(settings: DemoSettings) -> int:
    started = time.monotonic()
    shutil.rmtree(settings.out, ignore_errors=True)
    (settings.out / "logs").mkdir(parents=True)
    with Processes(settings.out / "logs") as processes, View() as view:
        builds, policy = _build(settings, view)
        fleet = Fleet(settings, processes, _camera(settings))
        view.say("server and five boards")
        fleet.start_server()
        fleet.start_boards()
        rollouts = _roll_out(fleet, builds, policy, view)
        time.sleep(2)  # a little steady running after the last one
        summary = _summarise(settings, fleet, rollouts, started)
    write_whole(settings.summary, json.dumps(summary, indent=2).encode() + b"\n", 0o644)
    return _show(summary, settings)


def _camera(settings: DemoSettings) -> dict[str, object]:
    """Returns what the boards look at: a drawn video, or the images of one's own data."""
    if settings.data is not None:
        return {"kind": "folder", "path": str(settings.out / "data" / "val" / "images")}
    video = settings.out / "camera.mp4"
    draw_video(video, seconds=60, fps=settings.fps, size=settings.input_size, seed=7, pace=PACE)
    return {"kind": "video", "path": str(video)}


def _build(settings: DemoSettings, view: View) -> tuple[dict[str, Path], Path]:
    releases = Releases(settings)
    view.say("reading data" if settings.data else "drawing data")
    data = releases.draw()
    size, large = settings.input_size, settings.large_size
    view.say("building 1.0; the latency budgets are set from it")
    builds = {"1.0": releases.build("1.0", settings.weights, data.right, size=size, policy=None)}
    policy = releases.policy
    view.say("training 1.1 (a little more) and 1.3 (on swapped labels)")
    following, wrong = releases.train_next(data), releases.train_wrong(data)
    view.say("building 1.1, 1.2 (same weights, larger input, over budget) and 1.3 (wrong labels)")
    builds["1.1"] = releases.build("1.1", following, data.right, size=size, policy=policy)
    builds["1.2"] = releases.build(
        "1.2", following, data.right, size=large, policy=policy,
        overrides={"latency_p95_ms": _REASON, "accuracy_drop": _REASON, "undecided": _REASON},
    )  # fmt: skip
    builds["1.3"] = releases.build("1.3", wrong, data.wrong, size=size, policy=policy)
    return builds, policy


def _roll_out(
    fleet: Fleet, builds: dict[str, Path], policy: Path, view: View
) -> list[api.RolloutInfo]:
    done = []
    for release, folder in builds.items():
        percents = _ALL if release == "1.0" else _STAGED
        view.say(f"release {release}: signed, published, rolled out to "
                 + " → ".join(f"{each:g} %" for each in percents))  # fmt: skip
        fleet.publish(folder, policy)
        info = fleet.follow(fleet.roll_out(release, percents), view.show)
        view.say(f"release {release}: {info.state}. {info.reason}")
        done.append(info)
    return done


def _summarise(
    settings: DemoSettings, fleet: Fleet, rollouts: list[api.RolloutInfo], started: float
) -> dict[str, object]:
    client = fleet.client
    devices = {each.id: each for each in client.devices()}
    loops = {
        name: measure(read_sink(fleet.board(name)), spans_of(client.device_deployments(name)))
        for name in DEVICES
    }
    states = [open_read_only(fleet.board(name) / "state") for name in DEVICES]
    steady = [ms for loop in loops.values() for ms in loop.steady_ms]
    return {
        "releases": [release_row(r, client.rollout_deployments(r.id)) for r in rollouts],
        "devices": [
            {"id": name, "path": str(fleet.board(name).relative_to(settings.out)),
             "device_class": devices[name].device_class, "release": devices[name].release,
             "engine": devices[name].engine}
            for name in DEVICES
        ],
        "frames_processed": sum(loop.frames for loop in loops.values()),
        "frames_lost_to_updates": sum(loop.lost for loop in loops.values()),
        "frames_lost_elsewhere": sum(loop.lost_elsewhere for loop in loops.values()),
        "frames_per_second": settings.fps,
        "swap_longest_gap_ms": round(max(loop.longest_gap_ms for loop in loops.values()), 1),
        "steady_p99_ms": round(percentile(steady, 0.99), 2),
        "bytes_downloaded": sum(state.bytes_downloaded for state in states if state),
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def _show(summary: dict[str, object], settings: DemoSettings) -> int:
    console = Console()
    releases: list[dict[str, object]] = summary["releases"]  # type: ignore[assignment]
    console.print(summary_table(releases))
    for name in _SHOWN:
        console.print(f"{name.replace('_', ' ')}: {summary[name]}", highlight=False)
    devices: list[dict[str, object]] = summary["devices"]  # type: ignore[assignment]
    console.print(f"boards serve: {', '.join(sorted({str(d['release']) for d in devices}))}")
    console.print(f"figures: {settings.summary}", highlight=False)
    wanted = ["completed", "completed", "halted", "halted"]
    as_it_should = (
        [each["verdict"] for each in releases] == wanted
        and summary["frames_lost_to_updates"] == 0
        and all(each["release"] == "1.1" for each in devices)
    )
    return 0 if as_it_should else 1


if __name__ == "__main__":
    sys.exit(main())
