"""The whole trial of a plan on a board whose TensorRT is another Python's."""

from __future__ import annotations

import asyncio
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kedge_agent import children
from kedge_agent.blobs import BlobStore
from kedge_agent.gpu import board_python
from kedge_agent.local_protocol import Form, PreflightJob
from kedge_agent.preflight_process import run_preflight
from kedge_shared.golden import write_references
from tests.sim.gpu import fake_tensorrt, old_maker
from tests.sim.gpu.fake_tensorrt import plan_of
from tests.sim.plans import VERSION, manifest, plan, ref, slot_of, store_in
from tests.sim.store import put


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state_dir: Path) -> BlobStore:
    return store_in(state_dir)


#: What ``import tensorrt`` finds on such a Python: the fake, and a CUDA beneath it.
_BINDINGS = f"""
import sys
sys.path.insert(0, {str(Path(old_maker.__file__).parent)!r})
import cudart, fake_tensorrt
__version__ = {VERSION!r}
fake = cudart.FakeCudart()
sys.modules["__main__"].find_library = lambda: fake
found = fake_tensorrt.module(__version__, fake)
globals().update(vars(found))
"""


@pytest.fixture
def other_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns a Python of its own with TensorRT's bindings, as JetPack brings one."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "python"
        venv.create(home, with_pip=False, symlinks=True)
        (packages,) = home.glob("lib/python3*/site-packages")
        source = Path(fake_tensorrt.__file__).parent
        text = _BINDINGS.replace(str(source), str(packages))
        for each in ("cudart.py", "fake_tensorrt.py"):
            (packages / each).write_bytes((source / each).read_bytes())
        (packages / "tensorrt.py").write_text(text)
        Path(folder).chmod(0o755)
        monkeypatch.setenv(board_python.PYTHON_ENV, str(home / "bin/python"))
        yield home / "bin/python"


def test_the_trial_runs_a_plan_on_the_boards_own_python_behind_both_walls(
    store: BlobStore, other_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert board_python.version(other_python) == VERSION
    # The child sees what board this machine is: its plan fits any.
    large = plan_of(scratch=512 << 20)
    anywhere = plan(large, sm=(), soc=("",), cuda=None)
    references = put(store, write_references({}))
    told = manifest(plans=(anywhere,))
    kept = tuple(each for each in told.files if each.role in {"engine", "timing-cache"})
    file = ref("golden-references", write_references({}), "golden.json")
    golden = replace(told.golden, references=references)
    told = replace(told, files=(*kept, file, ref("plan", large, "model.plan")), golden=golden)
    assert board_python.PYTHON_ENV in children.clean_environment()
    slot = slot_of(store, told)
    slot = msgspec.structs.replace(
        slot, form=Form(way="exact-plan", runtime="tensorrt", file=put(store, large))
    )
    job = PreflightJob(blobs=str(store.root), candidate=slot, active=slot, threads=1, rounds=4)
    found = asyncio.run(run_preflight(job, 240.0))
    assert found.ok, found.error
    assert found.frames == 1
    assert found.memory_mb > 512, "what the engine says it takes of the GPU is counted"
    assert found.active_ms > 0
