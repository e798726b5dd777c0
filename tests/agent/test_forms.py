"""Which form of a build a board runs, and the seal on what it built."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from kedge_agent import detector, facts, hardware, preflight
from kedge_agent.blobs import BlobStore
from kedge_agent.building import forms, seal
from kedge_agent.building.forms import form_of, loadable, needed
from kedge_agent.building.seal import Derived
from kedge_agent.errors import EngineError, Misfit
from kedge_agent.gpu.engine_host import Cuda
from kedge_agent.identity import seal_key
from kedge_agent.local_protocol import Form, PreflightJob
from kedge_agent.runtimes.tensorrt import TensorRt
from kedge_agent.ways import WAYS
from kedge_shared import signing
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.errors import TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import Fallback, Manifest
from kedge_shared.plans import OnDevice
from kedge_shared.resolver import resolve
from tests.shared import samples
from tests.sim.gpu import fake_tensorrt
from tests.sim.gpu.cudart import FakeCudart
from tests.sim.gpu.fake_tensorrt import plan_of
from tests.sim.plans import (
    BOARD,
    CACHE,
    ONNX,
    VERSION,
    manifest,
    plan,
    ref,
    slot_of,
    store_in,
)
from tests.sim.store import put


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state_dir: Path) -> BlobStore:
    return store_in(state_dir)


def test_a_version_compatible_plan_is_loaded_through_its_lean_runtime_or_not_at_all(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = plan_of(version="8.6.2")
    ours = manifest(
        files=(*manifest().files, ref("plan", older, "older.plan")),
        plans=(plan(older, version="8.6.2.3", version_compatible=True),),
        on_device=OnDevice(allowed=False),
    )
    put(store, older)
    board = replace(BOARD, lean_runtimes=("8.6.2",), ways=WAYS)
    monkeypatch.setattr("tests.sim.plans.BOARD", board)
    slot = slot_of(store, ours)
    assert slot.form is not None
    assert slot.form.way == "compatible-plan"
    monkeypatch.setattr(facts, "gather", lambda installed: replace(board, runtimes=installed))
    module = fake_tensorrt.module("10.3.0.26", FakeCudart())
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    runtimes: Any = {"tensorrt": TensorRt("tensorrt", "tensorrt", lambda: Cuda(module.cudart))}
    library = Path("/usr/lib/aarch64-linux-gnu/libnvinfer_lean.so.8.6.2")
    monkeypatch.setattr(hardware, "lean_runtime", {"8.6.2.3": library}.get)
    loaded = detector.load_detector(slot, store, runtimes, 1)
    assert loaded.detect(np.zeros((40, 40, 3), np.uint8)).finite
    loaded.close()

    module.Runtime.deserialize_cuda_engine = lambda *_: pytest.fail("it was deserialized")
    monkeypatch.setattr(hardware, "lean_runtime", lambda _: None)
    with pytest.raises(EngineError, match=r"lacks TensorRT's lean runtime 8\.6\.2"):
        detector.load_detector(slot, store, runtimes, 1)
    monkeypatch.setattr(facts, "gather", lambda installed: replace(BOARD, runtimes=installed))
    with pytest.raises(EngineError, match="package libnvinfer-lean8"):
        detector.load_detector(slot, store, runtimes, 1)
    altered = bytearray(older)
    altered[-2] ^= 1
    store.path(sha256_hex(older)).write_bytes(altered)
    with pytest.raises(TrustError, match="altered"):
        detector.load_detector(slot, store, runtimes, 1)


def test_each_way_downloads_what_it_needs_and_nothing_else(store: BlobStore) -> None:
    exact = manifest(plans=(plan(plan_of()),))
    form = form_of(exact, resolve(exact, BOARD))
    assert form is not None
    assert (form.way, form.runtime, form.file) == ("exact-plan", "tensorrt", sha256_hex(plan_of()))
    assert {each.role for each in needed(exact, form)} == {"plan", "golden-references"}
    found = loadable(exact, form, store)
    assert [(each.role, each.sha256) for each in found.files] == [("engine", form.file)]

    built = manifest()
    form = form_of(built, resolve(built, BOARD))
    assert form is not None
    assert (form.way, form.timing_cache, form.seal) == ("build", sha256_hex(CACHE), None)
    roles = {each.role for each in needed(built, form)}
    assert roles == {"engine", "timing-cache", "golden-references"}
    with pytest.raises(EngineError, match="not built yet"):
        loadable(built, form, store)

    runtime = RuntimeRange(name="onnxruntime", range=">=1")
    other = manifest(fallback=Fallback(runtime=runtime), on_device=OnDevice(allowed=False))
    with_ort = replace(BOARD, runtimes={"onnxruntime": "1.20"})
    form = form_of(other, resolve(other, with_ort))
    assert form is not None
    assert (form.way, loadable(other, form, store).runtime) == ("fallback", "onnxruntime")
    assert {each.role for each in needed(other, form)} == {"engine", "golden-references"}

    plain = samples.manifest()
    assert form_of(plain, resolve(plain, replace(BOARD, arch="x86_64", runtimes={
        "onnxruntime": "1.20"}, cpu_flags=("avx2", "avx512_vnni")))) is None  # fmt: skip


def test_a_plan_that_the_manifest_does_not_list_is_not_loaded(store: BlobStore) -> None:
    with pytest.raises(TrustError, match="lists no plan"):
        loadable(manifest(), Form(way="exact-plan", runtime="tensorrt", file="0" * 64), store)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"runtimes": {"tensorrt": "10.4.0"}}, "plan of tensorrt 10.3.0.26, board has 10.4.0"),
        ({"sm": 72}, "plan for SM 87, board has 72"),
        ({"libraries": {"cuda": "13.0"}}, "plan of CUDA 12, the board's is 13"),
        ({"libraries": {}}, "plan of CUDA 12, the board's CUDA is not known"),
    ],
)
def test_a_board_that_was_changed_since_does_not_deserialize_the_plan(
    store: BlobStore, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = replace(BOARD, **changes)
    monkeypatch.setattr(facts, "gather", lambda installed: replace(board, runtimes=installed))
    wanted = loadable(*exact(), store)
    blobs = detector.open_files(wanted.files, store)
    with pytest.raises(Misfit, match=said):
        forms.check(wanted, blobs, lambda: board.runtimes["tensorrt"])


def test_another_toolkit_beside_the_one_of_the_plan_changes_nothing(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody installed CUDA 13, which /usr/local/cuda now is; TensorRT goes on with 12."""
    board = replace(BOARD, libraries={"cuda": "13.0.48"}, cuda=(13, 12))
    monkeypatch.setattr(facts, "gather", lambda installed: replace(board, runtimes=installed))
    wanted = loadable(*exact(), store)
    forms.check(wanted, detector.open_files(wanted.files, store), lambda: VERSION)


def test_a_misfit_is_not_the_engines_fault_and_keeps_no_new_engine_out(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(BOARD, runtimes={"tensorrt": "10.7.0"})
    monkeypatch.setattr(facts, "gather", lambda installed: replace(other, runtimes=installed))
    module = fake_tensorrt.module("10.7.0", FakeCudart())
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    runtime = TensorRt("tensorrt", "tensorrt", lambda: Cuda(module.cudart))
    monkeypatch.setattr(preflight, "RUNTIMES", {"tensorrt": runtime})
    slot = slot_of(store, exact()[0])
    job = PreflightJob(blobs=str(store.root), candidate=slot, active=slot, threads=1, rounds=8)
    result = preflight.examine(job, store)
    assert (result.ok, result.misfit) == (False, True)
    assert result.error == "plan of tensorrt 10.3.0.26, board has 10.7.0"
    assert preflight._beside(job, store) is None, "what is tried next is tried without it"
    store.path(slot.manifest).write_bytes(b"altered")
    with pytest.raises(TrustError, match="altered"):
        preflight._beside(job, store)


def exact() -> tuple[Manifest, Form | None]:
    found = manifest(plans=(plan(plan_of()),))
    return found, form_of(found, resolve(found, BOARD))


# -- the seal ------------------------------------------------------------------------------------


def test_a_seal_holds_on_this_board_and_for_this_source_alone(store: BlobStore) -> None:
    assert store.sealer is not None
    made, source = Derived(plan=plan(plan_of()), length=9), sha256_hex(ONNX)
    own = seal_key(store.root.parent)
    assert seal.opened(seal.sealed(made, own), store.sealer, source) == made
    stranger = signing.generate()
    with pytest.raises(TrustError) as told:
        seal.opened(seal.sealed(made, stranger), store.sealer, source)
    assert told.value.attack == "signature" if hasattr(told.value, "attack") else True
    for data, said in (
        (seal.sealed(made, stranger), "not signed by"),
        (seal.sealed(made, own).replace(b"signatures", b"signaturez"), "malformed"),
        (b"{", "malformed"),
    ):
        with pytest.raises(TrustError, match=said):
            seal.opened(data, store.sealer, source)
    with pytest.raises(TrustError, match="another model"):
        seal.opened(seal.sealed(made, own), store.sealer, "0" * 64)
    with pytest.raises(TrustError, match="not"):
        seal.opened(
            msgspec.json.encode(signing.seal(made, "other+json", own)), store.sealer, source
        )


def test_a_plan_in_anothers_place_is_not_loaded(store: BlobStore) -> None:
    own = seal_key(store.root.parent)
    sealed = put(store, seal.sealed(Derived(plan=plan(plan_of()), length=1), own))
    form = Form(way="build", runtime="tensorrt", file="1" * 64, seal=sealed)
    with pytest.raises(TrustError, match="another plan's"):
        loadable(manifest(), form, store)
    with pytest.raises(TrustError, match="no seal key"):
        loadable(manifest(), form, BlobStore(store.root))
