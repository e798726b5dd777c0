"""What several test folders share: real builds of the small fixture, made once a session."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import last_words

pytest_configure = last_words.pytest_configure

# Two processes of tests share the cores: threads of OpenMP would spin on those that the other one
# needs. Pruning took six times the processor's time. Read when torch is imported, here and below.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

#: Free memory with which the folders of tests are kept there, bytes; they take a tenth of it.
_ROOM = 8 * 2**30


def _keep_folders_in_memory() -> None:
    """Boards and servers sync what they write, hundreds of times a test: half of it was waiting.

    What a disk keeps when the power goes is tested on simulated disks, wherever they lie.
    """
    memory = Path("/dev/shm")
    if not memory.is_dir() or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return  # as in containers: tests put programs into their folders
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if min(free, shutil.disk_usage(memory).free) > _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


_keep_folders_in_memory()

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _read_authorities_once() -> None:
    """httpx reads all authorities of the web for every client, also for one of plain HTTP.

    Most tests make several clients; what the environment names instead is still read anew.
    """
    from httpx._transports import default

    made = default.create_ssl_context
    shared = cache(lambda *_: made())

    def context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> Any:
        if verify is not True or cert is not None or not trust_env:
            return made(verify, cert, trust_env)
        return shared(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))

    default.create_ssl_context = context


_read_authorities_once()

#: Folders with long files, the longest first: so two processes end at about the same time.
_LONG = ("e2e", "builder", "agent", "server")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the folders of long files; within a folder nothing changes."""
    order = {name: at for at, name in enumerate(_LONG)}
    root = Path(__file__).parent
    items.sort(key=lambda each: order.get(each.path.relative_to(root).parts[0], len(_LONG)))


FIXTURE = Path(__file__).parents[1] / "demo" / "weights" / "shapes_pico.pt"
SIZE = 160


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set; returns its data.yaml."""
    from demo.shapes import draw_dataset

    root = tmp_path_factory.mktemp("shapes") / "data"
    return draw_dataset(root, train=72, val=60, size=SIZE, seed=5)


Builder = Callable[..., Any]


@pytest.fixture(scope="session")
def build(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Returns a function that builds with the shared data and loose budgets."""
    from dataclasses import replace

    from kedge_builder.pipeline import run
    from kedge_builder.progress import Progress
    from kedge_builder.recipe import BuildOptions
    from kedge_shared.device_classes import find_class

    # As on a user's machine, later builds skip what earlier ones did, those of other processes too.
    shared = tmp_path_factory.getbasetemp()
    steps = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "steps"

    def make(release: str, *classes: str, **changes: Any) -> Any:
        budgets = changes.pop("budgets", {"latency_p95_ms": 500.0, "accuracy_drop": 0.2})
        found = [find_class(each) for each in classes or ("x86-onnxruntime",)]
        chosen = [replace(each, budgets=replace(each.budgets, **budgets)) for each in found]
        out = tmp_path_factory.mktemp(f"build-{release}") / "out"
        options = {
            "weights": FIXTURE, "data": shapes, "classes": chosen, "out": out, "model": "shapes",
            "release": release, "release_counter": int(release.replace(".", "")),
            "cache": steps, "input_size": SIZE, "latency_seconds": 0.5,
            "overrides": {"speed": "a noisy machine"},
        } | changes  # fmt: skip
        return run(BuildOptions(**options), Progress(quiet=True))

    return make


@pytest.fixture(scope="session")
def built(build: Builder) -> dict[str, Any]:
    """Release 1.0 for both classes: device class → BuildResult."""
    results = build("1.0", "x86-onnxruntime", "x86-openvino")
    return {each.device_class: each for each in results}
