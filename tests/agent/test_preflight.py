"""The preflight child with real engines in both runtimes, and with what must not reach one."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kedge_agent import preflight, preflight_child
from kedge_agent.blobs import BlobStore
from kedge_agent.detector import load_detector
from kedge_agent.errors import EngineError, EngineKilled
from kedge_agent.local_protocol import PreflightJob, PreflightResult, Slot
from kedge_agent.preflight_process import read_result, run_preflight
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_shared import wire
from kedge_shared.errors import TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import read_manifest
from tests.sim.exits import aborts_at_exit
from tests.sim.onnx_engine import endless_onnx, greedy_onnx
from tests.sim.store import put, put_build
from tests.waiting import PATIENCE

CLASSES = ["x86-onnxruntime", "x86-openvino"]


@pytest.fixture
def store() -> Iterator[BlobStore]:
    """Not in memory: the child may use /dev, and so what lies in /dev/shm."""
    with tempfile.TemporaryDirectory() as folder:
        yield BlobStore(Path(folder) / "blobs")


def examine(
    store: BlobStore, candidate: Slot, active: Slot | None = None, seconds: float = 60, **more: Any
) -> PreflightResult:
    job = PreflightJob(
        blobs=str(store.root), candidate=candidate, active=active, threads=1, rounds=8, **more
    )
    return asyncio.run(run_preflight(job, seconds))


def with_engine(store: BlobStore, slot: Slot, body: bytes) -> Slot:
    """Returns the slot of a correctly hashed build whose engine is other bytes."""
    manifest = read_manifest(store.path(slot.manifest).read_bytes())
    files = tuple(
        replace(each, sha256=put(store, body), length=len(body)) if each.role == "engine" else each
        for each in manifest.files
    )
    changed = wire.encode_pretty(replace(manifest, files=files))
    return msgspec.structs.replace(slot, manifest=put(store, changed), engine=sha256_hex(body))


@pytest.mark.parametrize("name", CLASSES)
def test_a_good_engine(store: BlobStore, built: dict[str, Any], name: str) -> None:
    result = examine(store, put_build(store, built[name].folder))
    assert result.ok, result.error
    assert result.fidelity is not None
    assert result.fidelity > 0.98, "the very kernels that recorded the references"
    assert result.label_score is not None
    assert result.label_score > 0.9
    assert result.frames == 24
    assert result.candidate_ms > 0
    assert (result.active_ms, result.ratio, result.agreement) == (0, None, None)
    assert {"limits", "privileges"} <= set(result.sandbox)


def test_a_library_that_aborts_at_exit_is_no_fault_of_the_engine(
    store: BlobStore, built: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenVINO 2025.2 does on Arm; the engine would have been quarantined for it."""
    aborts_at_exit(tmp_path, monkeypatch)
    result = examine(store, put_build(store, built["x86-onnxruntime"].folder))
    assert result.ok, result.error


def test_beside_the_active_engine_of_another_runtime(
    store: BlobStore, built: dict[str, Any]
) -> None:
    active, candidate = (put_build(store, built[name].folder) for name in CLASSES)
    result = examine(store, candidate, active)
    assert result.ok, result.error
    assert result.agreement is not None
    assert result.agreement > 0.9
    assert result.active_ms > 0
    assert result.ratio is not None
    assert result.ratio.rounds in {8, 16, 32, 64}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("body", [b"", b"garbage" * 1000])
def test_an_engine_that_is_none(
    store: BlobStore, built: dict[str, Any], name: str, body: bytes
) -> None:
    result = examine(store, with_engine(store, put_build(store, built[name].folder), body))
    assert not result.ok
    assert result.error


def test_a_cut_engine(store: BlobStore, built: dict[str, Any]) -> None:
    slot = put_build(store, built["x86-onnxruntime"].folder)
    body = store.path(slot.engine).read_bytes()
    result = examine(store, with_engine(store, slot, body[: len(body) // 2]))
    assert not result.ok


@pytest.mark.parametrize("name", CLASSES)
def test_altered_on_the_board_reaches_no_runtime(
    store: BlobStore, built: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = put_build(store, built[name].folder)
    path = store.path(slot.engine)
    body = bytearray(path.read_bytes())
    body[len(body) // 3] ^= 0x10
    path.write_bytes(body)
    result = examine(store, slot)
    assert not result.ok
    assert "altered on this board" in result.error

    class Trap:
        """A runtime that must not be called."""

        def load(self, *_: Any, **__: Any) -> None:
            raise AssertionError("unverified bytes reached a runtime")

    runtime = read_manifest(store.path(slot.manifest).read_bytes()).runtime.name
    with pytest.raises(TrustError, match="altered"):
        load_detector(slot, store, {runtime: Trap()}, 1)  # type: ignore[dict-item]


def test_an_engine_that_hangs_is_ended(store: BlobStore, built: dict[str, Any]) -> None:
    slot = put_build(store, built["x86-onnxruntime"].folder)
    started = time.monotonic()
    result = examine(
        store, with_engine(store, slot, endless_onnx(built_size(store, slot))), seconds=8
    )
    assert 8 <= time.monotonic() - started < 8 + PATIENCE
    assert (result.ok, result.short) == (False, False)
    assert "hangs" in result.error


@pytest.mark.parametrize("name", CLASSES)
def test_an_engine_that_takes_too_much_memory(
    store: BlobStore, built: dict[str, Any], name: str
) -> None:
    slot = put_build(store, built["x86-onnxruntime"].folder)
    if name == "x86-openvino":
        slot = as_openvino(store, slot)
    body = greedy_onnx(built_size(store, slot), 4 * 2**30)
    result = examine(store, with_engine(store, slot, body), memory_mb=500)
    assert not result.ok
    assert result.short, f"memory is the board's, not the engine's: {result.error}"


def built_size(store: BlobStore, slot: Slot) -> int:
    return read_manifest(store.path(slot.manifest).read_bytes()).input.height


def as_openvino(store: BlobStore, slot: Slot) -> Slot:
    """Returns the slot of the same build for OpenVINO, which reads ONNX too."""
    manifest = read_manifest(store.path(slot.manifest).read_bytes())
    runtime = replace(manifest.runtime, name="openvino", range=">=2024")
    changed = wire.encode_pretty(replace(manifest, runtime=runtime))
    return msgspec.structs.replace(slot, manifest=put(store, changed))


@pytest.mark.parametrize(
    ("status", "output", "said"),
    [
        (-11, b"", "SIGSEGV"),
        (-9, b'{"ok": true}', "SIGKILL"),
        (-6, b"", "SIGABRT"),
        (1, b"", "ended with 1: the last words"),
        (0, b"not json", "ended with 0"),
    ],
)
def test_what_a_dying_child_leaves(status: int, output: bytes, said: str) -> None:
    result = read_result(status, output, b"a traceback\nthe last words\n")
    assert not result.ok
    assert said in result.error


def test_what_the_kernel_kills_for_memory_is_not_the_engines_fault() -> None:
    assert read_result(-9, b"", b"").short
    assert not read_result(-11, b"", b"").short


def test_an_engines_process_that_the_kernel_killed_is_not_the_engines_fault_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: Any) -> None:
        raise EngineKilled("engine's process was killed (SIGKILL): memory was short")

    monkeypatch.setattr(preflight, "examine", killed)
    found = preflight_child._examine(None, None)  # type: ignore[arg-type]
    assert (found.ok, found.short) == (False, True)
    assert "memory was short" in found.error


def test_the_child_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    from kedge_agent.children import clean_environment

    monkeypatch.setenv("KEDGE_ENROL_TOKEN", "secret")
    monkeypatch.setenv("KEDGE_TOKEN", "secret")
    assert "secret" not in clean_environment().values()


def test_a_runtime_that_is_not_there_is_named(store: BlobStore, built: dict[str, Any]) -> None:
    slot = put_build(store, built["x86-onnxruntime"].folder)
    with pytest.raises(EngineError, match="onnxruntime"):
        load_detector(slot, store, {}, 1)


@pytest.mark.parametrize("name", CLASSES)
def test_memory_and_descriptors_come_back(
    store: BlobStore, built: dict[str, Any], name: str
) -> None:
    slot = put_build(store, built[name].folder)

    def descriptors() -> list[str]:
        found = []
        for each in Path("/proc/self/fd").iterdir():
            try:
                found.append(str(each.readlink()))
            except OSError:
                continue
        return [each for each in found if "memfd" in each]

    before = len(descriptors())
    for _ in range(3):
        load_detector(slot, store, RUNTIMES, 1).close()
    import gc

    gc.collect()
    assert len(descriptors()) == before
