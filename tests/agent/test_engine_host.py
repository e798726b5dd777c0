"""TensorRT on the Python that a board brings for it: its process, its walls, its end."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_agent import sandbox
from kedge_agent.blobs import BlobStore
from kedge_agent.detector import Detector
from kedge_agent.errors import EngineError, EngineGone
from kedge_agent.gpu import board_python, engine_host, plan_maker
from kedge_agent.hosting import wire
from kedge_agent.hosting.process import Host
from kedge_agent.hotswap import HotEngine
from kedge_agent.runtimes import tensorrt
from kedge_agent.runtimes.tensorrt import HostedTensorRt, TensorRt
from tests.agent.test_tensorrt import BATCH, HOST_FILE, Spec, blobs
from tests.sim.engine import FRAME, SimDetector, slot_of
from tests.sim.gpu import old_host
from tests.sim.gpu.fake_tensorrt import header_of, plan_of


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def pythons() -> list[str]:
    """Returns this Python and those that JetPack brings, where this machine has them."""
    found = [sys.executable]
    for name in ("python3.6", "python3.8"):
        places = [shutil.which(name), *Path.home().glob(f".pyenv/versions/{name[6:]}.*/bin/python")]
        found += [str(each) for each in places if each and runs(str(each))][:1]
    return found


def runs(python: str) -> bool:
    try:
        return subprocess.run([python, "-V"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(params=[("8.2.1.9"), ("8.5.2.2"), ("10.3.0.26")])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


#: As walled.py does it; what stands in for TensorRT is readable too.
_WALLED = f"""
import sys
from pathlib import Path
from kedge_agent.hosting import walled
walled.become(sys.argv[1:], [Path({str(Path(old_host.__file__).parent)!r})])
"""


def host_of(python: str, version: str, *, walls: bool = True) -> Host:
    command = (python, "-I", str(old_host.__file__), version, str(HOST_FILE))
    return Host((sys.executable, "-c", _WALLED, *command) if walls else command)


@pytest.fixture
def hosted(store: BlobStore) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def load(
        plan: bytes,
        python: str = sys.executable,
        version: str = "8.2.1.9",
        lean: str = "",
        **more: Any,
    ) -> Any:
        runtime = HostedTensorRt(Path(python), host_of(python, version, **more)).through(lean)
        made.append(runtime.load(blobs(store, plan), Spec(), threads=1))
        return made[-1]

    yield load
    for each in made:
        each.close()
        assert each._process.poll() is not None


@pytest.mark.parametrize("python", pythons())
def test_a_boards_own_python_runs_the_engine(
    hosted: Callable[..., Any], python: str, version: str
) -> None:
    engine = hosted(header_of(plan_of()), python, version, walls=False)
    for scale in (1.0, 0.5):
        found = engine.infer(BATCH * np.float32(scale))
        assert found.shape == (1, 6, 16)
        assert np.array_equal(found.reshape(-1), (BATCH * np.float32(scale)).reshape(-1)[:96])
    assert engine.memory_mb == pytest.approx(1 + (BATCH.nbytes + 96 * 4) / 2**20)


@pytest.mark.parametrize("python", pythons())
def test_it_loads_an_older_releases_plan_through_the_lean_runtime(
    hosted: Callable[..., Any], python: str
) -> None:
    lean = "/usr/lib/aarch64-linux-gnu/libnvinfer_lean.so.8.6.2"
    plan = plan_of(version="8.6.2")
    engine = hosted(plan, python, "10.3.0.26", lean, walls=False)
    assert np.array_equal(engine.infer(BATCH).reshape(-1), BATCH.reshape(-1)[:96])
    with pytest.raises(EngineError, match="Version tag"):
        hosted(plan, python, "10.3.0.26", walls=False)


def test_its_process_stands_behind_the_walls(hosted: Callable[..., Any]) -> None:
    engine = hosted(plan_of())
    status = Path(f"/proc/{engine.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    own = Path("/proc/self/oom_score_adj").read_text()
    assert Path(f"/proc/{engine.pid}/oom_score_adj").read_text() == own
    told = subprocess.run([sys.executable, "-m", "kedge_agent.sandbox"], capture_output=True,
                          text=True, check=True)  # fmt: skip
    if "calls" in told.stdout.split():
        assert "Seccomp:\t2" in status
    if "network" in told.stdout.split():
        mine = Path("/proc/self/ns/net").readlink()
        assert Path(f"/proc/{engine.pid}/ns/net").readlink() != mine
    assert np.array_equal(engine.infer(BATCH).reshape(-1), BATCH.reshape(-1)[:96])


@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [("refuses", EngineError, "enqueue failed"), ("async", EngineGone, "illegal memory access"),
     ("exit", EngineGone, "status 3")],
)  # fmt: skip
def test_what_becomes_of_the_process_is_the_engines_error_and_the_older_one_answers(
    hosted: Callable[..., Any], bad: str, error: type[EngineError], said: str
) -> None:
    engine = hosted(plan_of(bad=bad), walls=False)
    hot = HotEngine(SimDetector("old"))  # type: ignore[arg-type]
    hot.load(lambda: Detector(engine, Spec(), slot_of("new")))
    hot.swap()
    names = [answer.slot.release for _ in range(5) if (answer := hot.infer(FRAME)) is not None]
    assert names == ["new"] * 2 + ["old"] * 3
    assert said in hot.fell_back
    if error is EngineGone:
        with pytest.raises(EngineGone):
            engine.infer(BATCH)
    hot.close()


@pytest.mark.parametrize(
    ("plan", "error", "said"),
    [
        (plan_of(bad="plugin"), EngineError, "EfficientNMS_TRT"),
        (plan_of(bad="short"), MemoryError, "OutOfMemory"),
        (b"ftrt", EngineError, "cut off"),
    ],
)
def test_what_the_process_does_not_take(
    hosted: Callable[..., Any], plan: bytes, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        hosted(plan, walls=False)


def test_processes_can_be_started_before_the_walls_of_their_user_stand(store: BlobStore) -> None:
    host = host_of(sys.executable, "8.2.1.9", walls=False)
    runtime = HostedTensorRt(Path(sys.executable), host)
    runtime.reserve(1)
    waiting = host._waiting[0].process.pid
    engine: Any = runtime.load(blobs(store, plan_of()), Spec(), threads=1)
    assert engine.pid == waiting
    assert host._waiting == []
    engine.close()


def test_the_hosts_words_are_the_wires() -> None:
    assert engine_host.HEADER.format == wire._HEADER.format
    for name in ("MAGIC", "VERSION", "LOAD", "READY", "INFER", "ANSWER", "FAILED", "ENGINE",
                 "MEMORY", "LOST"):  # fmt: skip
        assert getattr(engine_host, name) == getattr(wire, name), name


def test_host_and_builder_know_want_of_memory_by_the_same_words() -> None:
    assert engine_host._SHORT.pattern == plan_maker._SHORT.pattern
    assert engine_host._VENDOR == plan_maker._VENDOR


@pytest.mark.parametrize("name", ["engine_host.py", "plan_maker.py"])
def test_the_files_for_other_pythons_are_python_36_without_dependencies(name: str) -> None:
    source = HOST_FILE.with_name(name).read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    modules = {each.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import)
               for each in node.names}  # fmt: skip
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules <= set(sys.stdlib_module_names)


def test_the_boards_python_is_found_by_its_bindings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert isinstance(tensorrt.classic(tmp_path), TensorRt)
    (tmp_path / "usr/lib/python3.8/dist-packages/tensorrt").mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir()
    assert isinstance(tensorrt.classic(tmp_path), TensorRt), "bindings without their Python"
    (tmp_path / "usr/bin/python3.8").touch()
    found = tensorrt.classic(tmp_path)
    assert isinstance(found, HostedTensorRt)
    assert found._python == tmp_path / "usr/bin/python3.8"
    assert found.probe() is None
    monkeypatch.setenv(board_python.PYTHON_ENV, "/opt/python")
    assert board_python.find(tmp_path) == Path("/opt/python")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    assert isinstance(tensorrt.classic(tmp_path), TensorRt), "bindings beside the agent come first"


def test_a_gpus_group_is_kept_when_the_user_changes(tmp_path: Path) -> None:
    assert sandbox._gpu_groups(tmp_path) == []
    (tmp_path / "nvmap").touch()
    own = os.getgid()
    assert sandbox._gpu_groups(tmp_path) == ([own] if own else [])
