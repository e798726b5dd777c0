"""A plan that the board builds: at which pace, how it is kept, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu
from kedge_agent.blobs import BlobStore
from kedge_agent.building import maker
from kedge_agent.building.maker import Held, Job, NotBuilt
from kedge_agent.building.pacing import Pace
from kedge_agent.gpu import board_python, plan_maker
from kedge_shared.plans import OnDevice
from tests.agent.test_engine_host import pythons
from tests.sim.gpu import old_maker
from tests.sim.plans import NETWORK, ONNX, VERSION, store_in
from tests.sim.store import put


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state_dir: Path) -> BlobStore:
    return store_in(state_dir)


# -- the pace ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usual", "looks", "stands"),
    [
        (10.0, [10, 14.9, 15.0], [False, False, False]),
        (10.0, [15.1, 14.9, 14.4, 15.1], [True, True, False, True]),
        (0.0, [100.0], [False]),  # nothing serves
        (10.0, [20.0, 0.0], [True, False]),  # it served no more
    ],
)
def test_a_build_stands_still_while_the_loop_is_too_slow(
    usual: float, looks: list[float], stands: list[bool]
) -> None:
    pace, found = Pace(usual, 1.5), []
    for each in looks:
        pace = pace.after(each)
        found.append(pace.stands)
    assert found == stands


# -- building ------------------------------------------------------------------------------------


def command(version: str = VERSION, python: str = sys.executable) -> tuple[str, ...]:
    return (python, "-I", str(old_maker.__file__), version, str(plan_maker.__file__))


def job(store: BlobStore, onnx: bytes = ONNX, seconds: float = 60.0, **more: Any) -> Job:
    blob = store.open_verified(put(store, onnx))
    how = more.pop("command", None)
    wanted = more.pop("wanted", OnDevice())
    return Job(how or command(**more), blob, None, wanted, seconds)


async def no_loop() -> float:
    return 0.0


def make(
    wanted: Job,
    pace: Pace = Pace(0.0, 1.5),
    look: Any = no_loop,
    shut: Callable[[], str] = lambda: "",
) -> tuple[bytes, maker.Told]:
    return asyncio.run(maker.make(wanted, pace, look, shut))


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize("version", ["8.2.1.9", "10.3.0.26", "11.4.0.7"])
def test_every_python_builds_and_the_decode_stays_float(
    store: BlobStore, version: str, python: str
) -> None:
    data, told = make(job(store, version=version, python=python))
    built = json.loads(data[64:])["built"]
    assert told.version == version
    assert told.memory_bytes == 1 << 20
    if version.startswith("11"):
        assert (built["flags"], built["network"], built["float"]) == ([], 2, [])
        assert told.flags == ("strongly-typed",)
    else:
        assert built["flags"] == ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
        assert built["float"] == ["exp", "mul"], (
            "the decode, and neither constants nor convolutions"
        )
        assert built["network"] == 1
        assert told.flags == ("float16", "int8", "decode-float32")


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize(
    ("wanted", "flags", "told"),
    [
        (OnDevice(int8=False), ["FP16", "OBEY_PRECISION_CONSTRAINTS"],
         ("float16", "decode-float32")),
        (OnDevice(int8=False, half=False), [], ("float32",)),
    ],
)  # fmt: skip
def test_a_nano_builds_fp16_of_a_float_onnx_and_fp32_where_fp16_lost_too_much(
    store: BlobStore, wanted: OnDevice, flags: list[str], told: tuple[str, ...], python: str
) -> None:
    data, said = make(job(store, version="8.2.1.9", python=python, wanted=wanted))
    built = json.loads(data[64:])["built"]
    assert (built["flags"], said.flags) == (flags, told)
    assert built["float"] == (["exp", "mul"] if flags else [])
    assert built["space"] == 1 << 30, "8.2 has no memory pools yet"


def test_the_decode_begins_behind_the_last_convolutions_and_holds_dfls(store: BlobStore) -> None:
    """DFL's convolution weighs a Softmax: in FP16 its distances would have steps of 1/128."""
    network = {
        "layers": [
            ["box", "CONVOLUTION", ["images"], ["a"]], ["split", "SHUFFLE", ["a"], ["b"]],
            ["soft", "SOFTMAX", ["b"], ["c"]], ["turn", "SHUFFLE", ["c"], ["d"]],
            ["dfl", "CONVOLUTION", ["d"], ["e"]], ["class", "CONVOLUTION", ["images"], ["f"]],
            ["score", "ACTIVATION", ["f"], ["g"]], ["all", "CONCATENATION", ["e", "g"], ["out"]],
        ],
        "outputs": ["out"],
    }  # fmt: skip
    data, _ = make(job(store, json.dumps(network).encode(), version="8.2.1.9"))
    kept = json.loads(data[64:])["built"]["float"]
    assert kept == sorted(["split", "soft", "turn", "dfl", "score", "all"])


@pytest.mark.parametrize("version", ["8.5.2.2", VERSION])
@pytest.mark.parametrize(
    ("bad", "said", "harm"),
    [
        ("operator", "No importer registered for op: Frobnicate", True),
        ("build", "could not find any implementation", True),
        ("memory", "could not find any implementation", False),
        ("workspace", "insufficient workspace", False),
        ("crash", "SIGSEGV", False),
    ],
)
def test_what_cannot_be_built_says_why(
    store: BlobStore, bad: str, said: str, harm: bool, version: str
) -> None:
    """TensorRT's last error says nothing, and a warning that memory was what wanted."""
    with pytest.raises(NotBuilt, match=said) as told:
        make(job(store, json.dumps(NETWORK | {"bad": bad}).encode(), version=version))
    assert told.value.harm is harm


@pytest.mark.parametrize("status", [2, 35])
def test_a_builder_that_does_not_start_is_the_boards(store: BlobStore, status: int) -> None:
    with pytest.raises(NotBuilt, match=f"does not start: CUDA initialization.*{status}") as told:
        make(job(store, command=(*command(), str(status))))
    assert not told.value.harm


def test_a_plan_that_cannot_be_asked_for_its_memory_is_a_plan(store: BlobStore) -> None:
    data, told = make(job(store, json.dumps(NETWORK | {"plan": "throws"}).encode()))
    assert data[:4] == b"ftrt"
    assert told.memory_bytes == 0


def test_the_harness_says_to_the_builder_what_the_agent_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(board_python, "maker", lambda _: command("8.2.1.9"))
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(ONNX)
    built = json.loads(gpu.build("tensorrt", onnx, tmp_path, int8=True).read_bytes()[64:])["built"]
    assert built["flags"] == ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]


def test_plugins_are_named(store: BlobStore) -> None:
    plugin = NETWORK | {"layers": [["nms", "PLUGIN_V2", ["images"], ["output0"]]]}
    with pytest.raises(NotBuilt, match="plugin for nms"):
        make(job(store, json.dumps(plugin).encode()))


def test_a_build_that_does_not_end_is_ended(store: BlobStore) -> None:
    endless = json.dumps(NETWORK | {"bad": "endless"}).encode()
    with pytest.raises(NotBuilt, match="not done in 2 s") as told:
        make(job(store, endless, seconds=2.0))
    assert not told.value.harm


@pytest.mark.parametrize("stands", [False, True])
def test_a_build_is_ended_when_its_time_is_over_even_while_it_stands_still(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stands: bool
) -> None:
    monkeypatch.setattr(maker, "_LOOK_SECONDS", 0.05)
    number, script = tmp_path / "pid", tmp_path / "sleep.py"
    script.write_text(
        f"import os, time\nopen({str(number)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    looks: list[float] = []

    async def look() -> float:
        """The loop is slow only once the build is known: stopped before, it would tell nothing."""
        if not (number.exists() and number.read_text()):
            return 10.0
        looks.append(30.0 if stands else 10.0)
        return looks[-1]

    def shut() -> str:
        return "waits for the maintenance window at Sat 03:00 UTC" if len(looks) > 2 else ""

    with pytest.raises(
        Held, match=r"ended after \d+ s and begins anew: waits for the maintenance window at Sat"
    ):
        make(job(store, command=(sys.executable, str(script))), Pace(10.0, 1.5), look, shut)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)


def test_a_build_is_stopped_while_the_loop_is_slow_and_goes_on_after(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that counts, looked at twice while the loop is slow: it must not have counted."""
    monkeypatch.setattr(maker, "_LOOK_SECONDS", 0.3)
    counts, script = tmp_path / "counts", tmp_path / "count.py"
    script.write_text(
        "import sys, time, json, os\n"
        "job = json.loads(sys.stdin.read())\n"
        f"out = open({str(counts)!r}, 'a')\n"
        "while True:\n"
        "    out.write('x'); out.flush(); time.sleep(0.01)\n"
        f"    if os.path.exists({str(tmp_path / 'end')!r}): break\n"
        "os.write(job['plan'], b'plan'); print(json.dumps({'ok': True}))\n"
    )
    seen: list[int] = []
    told = iter([10.0, 30.0, 30.0, 30.0, 10.0, 10.0, 10.0])

    async def look() -> float:
        seen.append(counts.stat().st_size if counts.exists() else 0)
        ms = next(told, 10.0)
        if len(seen) >= 7 and seen[-1] > seen[3]:
            (tmp_path / "end").touch()
        return ms

    data, _ = make(job(store, command=(sys.executable, str(script))), Pace(10.0, 1.5), look)
    assert data == b"plan"
    assert seen[2] == seen[3] == seen[4], "it stood still from the look that stopped it"
    assert seen[-1] > seen[4], "and went on"
