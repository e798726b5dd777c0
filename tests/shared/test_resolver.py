"""Which form of a build runs on which board: a literal table, and what must never be accepted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kedge_shared import wire
from kedge_shared.errors import InputError
from kedge_shared.manifest import Manifest, Requires, read_manifest
from kedge_shared.plans import OnDevice, Plan
from kedge_shared.protocol import DeviceFacts
from kedge_shared.resolver import Way, resolve
from kedge_shared.versions import same_release
from tests.shared.boards import (
    CACHE,
    EXACT,
    FORWARD,
    NANO,
    ON_CPU,
    ONNX,
    ORIN,
    OTHER,
    PLAN,
    RKNN_PLAN,
    ROCK,
    RTX,
    RTX_PLAN,
    TIMINGS,
    release,
)

NO_BUILD = OnDevice(allowed=False)
LEAN = replace(ORIN, lean_runtimes=("8.6.2",))


def only(*plans: Plan, **more: object) -> Manifest:
    """A release that may not be built on the board: its plans, or nothing."""
    return release(*plans, on_device=NO_BUILD, **more)  # type: ignore[arg-type]


def has(facts: DeviceFacts, version: str, cuda: str = "12.6") -> DeviceFacts:
    """The board with another TensorRT."""
    return replace(
        facts, runtimes={"tensorrt": version}, libraries={"tensorrt": version, "cuda": cuda}
    )


def lean(facts: DeviceFacts, *versions: str) -> DeviceFacts:
    return replace(facts, lean_runtimes=versions)


def can(facts: DeviceFacts, *ways: str) -> DeviceFacts:
    return replace(facts, ways=ways)


#: What, release, board, way, words that the operator reads.
TABLE: list[tuple[str, Manifest, DeviceFacts, Way, str]] = [
    # -- exact plans
    ("the very plan", release(EXACT), ORIN, "exact-plan", "exactly this board's"),
    ("a plan that is the engine", release(replace(EXACT, file=ONNX)), can(ORIN), "exact-plan",
     "exactly this board's"),
    ("four numbers on both sides", release(EXACT), has(ORIN, "10.3.0.30"), "exact-plan", "10.3.0"),
    ("another build of the release", only(EXACT), has(ORIN, "10.3.0.26"), "refused", "10.3.0.26"),
    ("another patch", only(EXACT), has(ORIN, "10.3.1"), "refused", "board has 10.3.1"),
    ("another minor", only(EXACT), has(ORIN, "10.7.0"), "refused", "board has 10.7.0"),
    ("another major", only(EXACT), has(ORIN, "8.5.2"), "refused", "board has 8.5.2"),
    ("a version too short to tell", only(EXACT), has(ORIN, "10.3"), "refused", "board has 10.3"),
    ("no plain version", only(EXACT), has(ORIN, "unknown"), "refused", "outside"),
    ("another SM", only(replace(EXACT, sm=(72,))), ORIN, "refused", "SM 72, board has 87"),
    ("a near SM", only(replace(EXACT, sm=(86,))), ORIN, "refused", "SM 86, board has 87"),
    ("no GPU", only(EXACT), replace(ORIN, sm=None), "refused", "no GPU"),
    ("another CUDA", only(EXACT), has(ORIN, "10.3.0", "13.0"), "refused", "board's is 13"),
    ("two CUDAs", only(EXACT), replace(ORIN, cuda=(13, 12)), "exact-plan", "exactly this board's"),
    ("two others", only(EXACT), replace(ORIN, cuda=(13, 11)), "refused", "board's is 13 and 11"),
    ("CUDA unknown", only(EXACT), replace(ORIN, libraries={}), "refused",
     "plan of CUDA 12, the board's CUDA is not known: no folder of libraries has libcudart.so.N"),
    ("a plan that tells no CUDA", only(replace(EXACT, cuda=None)), ORIN, "refused",
     "does not say which CUDA"),
    ("nobody tells a CUDA", only(replace(EXACT, cuda=None)), replace(ORIN, libraries={}), "refused",
     "does not say which CUDA"),
    ("a plan that tells no GPU", only(replace(EXACT, sm=())), ORIN, "refused", "does not say"),
    ("a plan with host code", only(replace(EXACT, host_code=True)), ORIN, "refused", "host code"),
    ("the second plan", release(replace(EXACT, file=OTHER, sm=(72,)), EXACT), ORIN, "exact-plan",
     "because plan for SM 72"),
    ("memory enough", release(replace(EXACT, memory_mb=7000)), ORIN, "exact-plan", "exactly"),
    ("memory short", only(replace(EXACT, memory_mb=8000)), ORIN, "refused", "takes 8000 MiB"),
    ("an agent that takes no choice", only(EXACT), can(ORIN), "refused", "cannot choose"),
    # -- version-compatible plans
    ("8 on 10", release(FORWARD), LEAN, "compatible-plan", "8.6.2.3 runs on 10.3.0"),
    ("10 on 11", release(replace(EXACT, version_compatible=True)),
     lean(has(ORIN, "11.4.0"), "10.3.0"), "compatible-plan", "runs on 11.4.0"),
    ("10 on a newer 10", release(replace(EXACT, version_compatible=True)),
     lean(has(ORIN, "10.7.0"), "10.3.0"), "compatible-plan", "runs on 10.7.0"),
    ("8 on 11", only(FORWARD), lean(has(ORIN, "11.0.0"), "8.6.2"), "refused", "does not run on 11"),
    ("11 on 10", only(replace(EXACT, version="11.0.0", version_compatible=True)),
     lean(ORIN, "11.0.0"), "refused", "does not run on 10.3.0"),
    ("10 on 8", only(replace(EXACT, version_compatible=True)),
     lean(has(ORIN, "8.6.2"), "10.3.0"), "refused", "does not run on 8.6.2"),
    ("10 on an older 10", only(replace(EXACT, version_compatible=True)),
     lean(has(ORIN, "10.1.0"), "10.3.0"), "refused", "does not run on 10.1.0"),
    ("8.5 was before such plans", only(replace(FORWARD, version="8.5.2")),
     lean(ORIN, "8.5.2"), "refused", "8.5.2 does not run"),
    ("not made compatible", only(replace(FORWARD, version_compatible=False)), LEAN, "refused",
     "board has 10.3.0"),
    ("no lean runtime", only(FORWARD), ORIN, "refused",
     "lacks TensorRT's lean runtime 8.6.2.3 (package libnvinfer-lean8)"),
    ("another lean runtime", only(FORWARD), lean(ORIN, "8.6.1"), "refused", "lean runtime 8.6.2"),
    ("compatible for another SM", only(replace(FORWARD, sm=(72,))), LEAN, "refused", "SM 72"),
    ("compatible, but host code", only(replace(FORWARD, host_code=True)), LEAN, "refused",
     "host code"),
    ("exact before compatible", release(replace(FORWARD, file=OTHER), EXACT), LEAN, "exact-plan",
     "exactly"),
    ("an agent without lean runtimes", only(FORWARD), can(LEAN, "plans", "build"), "refused",
     "agent 0.9 cannot load version-compatible plans"),
    # -- built on the board
    ("no plan at all", release(), ORIN, "build", "without a timing cache"),
    ("no plan that fits", release(replace(EXACT, sm=(72,))), ORIN, "build", "because plan for SM"),
    ("with timings", release(caches=(TIMINGS,)), ORIN, "build", "with the class's timing cache"),
    ("timings of another SM", release(caches=(replace(TIMINGS, sm=72),)), ORIN, "build", "without"),
    ("timings of another TensorRT", release(caches=(TIMINGS,)), has(ORIN, "10.7.0"), "build",
     "without a timing cache"),
    # What it built could not be told from another CUDA's: an hour's work, refused.
    ("CUDA unknown to the builder", release(), replace(ORIN, libraries={}), "refused",
     "the board's CUDA is not known: no folder of libraries has libcudart.so.N "
     "(package cuda-cudart-N, or nvidia-cuda-runtime from pip)"),
    ("timings of another CUDA", release(caches=(TIMINGS,)), has(ORIN, "10.3.0", "13.0"), "build",
     "without a timing cache"),
    ("timings of one of two", release(caches=(TIMINGS,)), replace(ORIN, cuda=(13, 12)), "build",
     "with the class's timing cache"),
    ("building forbidden", release(on_device=NO_BUILD), ORIN, "refused", "does not allow"),
    ("no memory to build", release(on_device=OnDevice(memory_mb=8000)), ORIN, "refused",
     "building takes 8000 MiB"),
    ("INT8 on a Nano", release(versions=">=8.2,<9"), NANO, "refused", "SM 53 has no INT8"),
    ("FP16 on a Nano", release(versions=">=8.2,<9", on_device=OnDevice(int8=False)), NANO, "build",
     "tensorrt 8.2.1 builds it"),
    ("a Volta, which 10.5 dropped", release(), replace(has(ORIN, "10.5.0"), sm=70), "refused",
     "tensorrt 10.5.0 runs on SM 75 and newer, the board's is 70"),
    ("a Volta, before", release(), replace(has(ORIN, "10.4.0"), sm=70), "build", "builds it"),
    ("a Turing", release(), replace(has(ORIN, "10.7.0"), sm=75), "build", "builds it"),
    ("a Pascal, which 10 dropped", release(), replace(has(ORIN, "10.0.1"), sm=61), "refused",
     "tensorrt 10.0.1 runs on SM 70 and newer, the board's is 61"),
    ("a Xavier with its own TensorRT", release(), replace(has(ORIN, "8.5.2"), sm=72), "build",
     "builds it"),
    ("a Xavier with another's", release(), replace(has(ORIN, "11.0.0"), sm=72), "refused",
     "runs on SM 75 and newer"),
    ("TensorRT out of range", release(versions=">=10.3,<11"), has(ORIN, "8.5.2"), "refused",
     "tensorrt 8.5.2 is outside"),
    ("an agent that cannot build", release(), can(ORIN, "plans"), "refused",
     "agent 0.9 cannot build"),
    ("a plan leaves nothing to build from", release(replace(EXACT, file=ONNX, sm=(72,))), ORIN,
     "refused", "no ONNX to build from"),
    # -- fallback
    ("declared fallback", release(on_device=NO_BUILD, fallback=ON_CPU), ORIN, "fallback",
     "falls back to onnxruntime because the release does not allow"),
    ("fallback not on the board", release(fallback=ON_CPU), replace(ORIN, runtimes={}), "refused",
     "fallback onnxruntime: runtime onnxruntime is not on the board"),
    ("fallback out of range", release(on_device=NO_BUILD, fallback=ON_CPU),
     replace(ORIN, runtimes={"onnxruntime": "1.16"}), "refused", "1.16 is outside"),
    ("an agent without fallbacks", release(on_device=NO_BUILD, fallback=ON_CPU), can(ORIN),
     "refused", "agent 0.9 takes no fallback"),
    # -- the agent's runtime, and what the release requires
    ("TensorRT there, but not for this agent", release(EXACT), replace(ORIN, runtimes={}),
     "refused", "tensorrt 10.3.0 is on the board, but agent 0.9 has no runtime that loads it"),
    ("another Jetson Linux", release(EXACT, requires=Requires(l4t=">=36")),
     replace(ORIN, l4t="35.4.1"), "refused", "Jetson Linux 35.4.1 is outside >=36"),
    ("no Jetson Linux", release(EXACT, requires=Requires(l4t=">=36")), replace(ORIN, l4t=""),
     "refused", "Jetson Linux >=36 is required, the board tells none "
     "(in a container: mount /etc/nv_tegra_release)"),
    ("another SoC", release(EXACT, requires=Requires(soc=("tegra194",))), ORIN, "refused",
     "build is for tegra194, the board is tegra234"),
    ("a container that masks the device tree",
     release(EXACT, requires=Requires(soc=("tegra234",))), replace(ORIN, soc=""), "refused",
     "build is for tegra234, the board tells no SoC: its device tree cannot be read "
     "(in a container: --security-opt systempaths=unconfined)"),
    ("an old Python", release(EXACT, requires=Requires(python=">=3.8")),
     replace(ORIN, python="3.6.9"), "refused", "Python 3.6.9 is outside"),
    # -- TensorRT for RTX
    ("RTX ahead of time", release(RTX_PLAN, runtime="tensorrt-rtx", versions=">=1.7,<2"), RTX,
     "exact-plan", "for SM 89"),
    ("RTX of another release", only(RTX_PLAN, runtime="tensorrt-rtx", versions=">=1.2,<2"),
     replace(RTX, runtimes={"tensorrt-rtx": "1.6.0"}), "refused", "board has 1.6.0"),
    ("RTX knows no version-compatible plan",
     only(replace(RTX_PLAN, version="10.0.0", version_compatible=True), runtime="tensorrt-rtx",
          versions=">=1.2"), replace(RTX, runtimes={"tensorrt-rtx": "10.1.0"},
     lean_runtimes=("10.0.0",)), "refused", "does not run on"),
    ("RTX on a Hopper", only(RTX_PLAN, runtime="tensorrt-rtx", versions=">=1.7,<2"),
     replace(RTX, sm=90), "refused", "SM 86, 89, 120, board has 90"),
    ("RTX is not built on a Hopper", release(runtime="tensorrt-rtx", versions=">=1.7,<2"),
     replace(RTX, sm=90), "refused", "does not run on SM 90"),
    ("RTX has no INT8 on a Turing", release(RTX_PLAN, runtime="tensorrt-rtx", versions=">=1.7,<2"),
     replace(RTX, sm=75), "refused", "tensorrt-rtx has no INT8 for SM 75"),
    ("RTX builds a float ONNX on a Turing", release(RTX_PLAN, runtime="tensorrt-rtx",
     versions=">=1.7,<2", on_device=OnDevice(int8=False)), replace(RTX, sm=75), "build",
     "because plan for SM 86, 89, 120, board has 75"),
    ("RTX builds INT8 on an Ampere", release(runtime="tensorrt-rtx", versions=">=1.7,<2"),
     replace(RTX, sm=86), "build", "builds it on the board"),
    ("an old driver", release(RTX_PLAN, runtime="tensorrt-rtx", versions=">=1.7,<2",
     requires=Requires(drivers={"nvidia": ">=580"})),
     replace(RTX, drivers={"nvidia": "535.129.03"}), "refused", "driver nvidia 535.129.03"),
    ("no driver", release(RTX_PLAN, runtime="tensorrt-rtx", versions=">=1.7,<2",
     requires=Requires(drivers={"nvidia": ">=580"})), replace(RTX, drivers={}), "refused",
     "driver nvidia >=580 is required"),
    ("GPU memory short", only(replace(RTX_PLAN, memory_mb=16000), runtime="tensorrt-rtx",
     versions=">=1.7,<2"), RTX, "refused", "takes 16000 MiB, the device has 12282"),
    ("GPU memory unknown", only(replace(RTX_PLAN, memory_mb=100), runtime="tensorrt-rtx",
     versions=">=1.7,<2"), replace(RTX, gpu_memory_mb=None), "refused", "the GPU's is not known"),
    # -- RKNN
    ("RKNN of the same toolkit", release(RKNN_PLAN, runtime="rknn", versions=">=2.3,<3"), ROCK,
     "exact-plan", "plan of rknn 2.3.2 for rk3588"),
    ("RKNN of another toolkit", release(replace(RKNN_PLAN, version="2.5.0"), runtime="rknn",
     versions=">=2.3,<3"), ROCK, "refused", "rknn 2.5.0, board has 2.3.2"),
    ("RKNN, engine and plan at once", release(replace(RKNN_PLAN, file=ONNX), runtime="rknn",
     versions=">=2.3,<3"), can(ROCK), "exact-plan", "is exactly this board's"),
    ("RKNN, a librknnrt within the range but of another toolkit", release(
        replace(RKNN_PLAN, file=ONNX), runtime="rknn", versions=">=2.3,<3"),
     replace(ROCK, runtimes={"rknn": "2.5.0"}), "refused",
     "plan of rknn 2.3.2, board has 2.5.0"),
    ("RKNN for another SoC", release(replace(RKNN_PLAN, soc=("rk3576",)), runtime="rknn",
     versions=">=2.3,<3"), ROCK, "refused", "plan for rk3576, the board is rk3588"),
    ("RKNN builds nothing on a board", release(runtime="rknn", versions=">=2.3,<3"), ROCK,
     "refused", "rknn builds nothing on a board"),
    ("an old NPU driver", release(RKNN_PLAN, runtime="rknn", versions=">=2.3,<3",
     requires=Requires(drivers={"rknpu": ">=0.9.2"})), replace(ROCK, drivers={"rknpu": "0.8.2"}),
     "refused", "driver rknpu 0.8.2 is outside"),
    # -- runtimes that load what was sent
    ("ONNX Runtime", release(runtime="onnxruntime", versions=">=1.20,<2"), can(ORIN), "engine",
     "satisfies"),
    ("ONNX Runtime out of range", release(runtime="onnxruntime", versions=">=1.24,<2"), ORIN,
     "refused", "outside"),
    ("a runtime that nobody has", release(runtime="openvino-gpu", versions=">=2025"), ORIN,
     "refused", "runtime openvino-gpu is not on the board"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "board", "way", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_table(build: Manifest, board: DeviceFacts, way: Way, words: str) -> None:
    found = resolve(build, board)
    assert (found.way, found.fits) == (way, way != "refused"), found.reason
    assert words in found.reason
    assert "\n" not in found.reason and len(found.reason) < 600


def test_the_file_is_the_one_that_fits() -> None:
    assert resolve(release(EXACT), ORIN).file == PLAN
    assert resolve(release(replace(EXACT, sm=(72,))), ORIN).file == ONNX
    assert resolve(release(replace(EXACT, file=OTHER, sm=(72,)), EXACT), ORIN).file == PLAN
    built = resolve(release(caches=(TIMINGS,)), ORIN)
    assert (built.file, built.timing_cache) == (ONNX, CACHE)
    assert resolve(only(replace(EXACT, sm=(72,))), ORIN).file == ""


# -- whatever is asked ---------------------------------------------------------------------------

VERSIONS = [
    "8.2.1", "8.5.2.2", "8.6.1", "8.6.2.3", "9.3.0", "10.1.0", "10.3.0", "10.3.0.30", "10.3.0.26",
    "10.7.0", "11.0.0", "11.4.0", "1.6.0", "1.7.1.116", "10.3", "",
]  # fmt: skip
SMS = [None, 53, 72, 75, 86, 87, 89, 90, 120]
#: Major of a plan → majors that may run it, if it was made for that.
ALLOWED = {8: {8, 10}, 10: {10, 11}, 11: {11}}

plans = st.builds(
    Plan,
    file=st.sampled_from([ONNX, PLAN, OTHER]), runtime=st.just("tensorrt"),
    version=st.sampled_from(VERSIONS), onnx=st.just(ONNX),
    sm=st.lists(st.sampled_from(SMS[1:]), max_size=3).map(tuple),
    cuda=st.sampled_from([None, 10, 12, 13]), version_compatible=st.booleans(),
    host_code=st.booleans(), memory_mb=st.sampled_from([None, 100, 5000, 9000]),
)  # fmt: skip
boards = st.builds(
    DeviceFacts,
    arch=st.just("aarch64"), memory_mb=st.sampled_from([2000.0, 7620.0, 32000.0]),
    runtimes=st.sampled_from(VERSIONS).map(lambda each: {"tensorrt": each} if each else {}),
    sm=st.sampled_from(SMS), soc=st.sampled_from(["", "tegra234"]),
    libraries=st.sampled_from([{}, {"cuda": "10.2"}, {"cuda": "12.6"}, {"cuda": "13.0"}]),
    cuda=st.sampled_from([(), (), (12,), (13, 12)]),
    lean_runtimes=st.lists(st.sampled_from(VERSIONS), max_size=4).map(tuple),
    gpu_memory_mb=st.sampled_from([None, 4000.0, 12000.0]),
    ways=st.lists(st.sampled_from(["plans", "lean", "build", "fallback"])).map(tuple),
)  # fmt: skip
builds = st.builds(
    lambda made, bounds, allowed, int8: release(
        *made, versions=bounds, on_device=OnDevice(allowed=allowed, int8=int8, memory_mb=4000)
    ),
    st.lists(plans, max_size=4), st.sampled_from([">=8,<12", ">=10.3,<11", ">=11"]),
    st.booleans(), st.booleans(),
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(builds, boards)
def test_nothing_is_accepted_that_must_not_be(build: Manifest, board: DeviceFacts) -> None:
    found = resolve(build, board)
    if not found.fits:
        assert found.way == "refused" and found.reason
        return
    have = [int(each) for each in board.runtimes["tensorrt"].split(".")]
    low, *high = (int(each) for each in build.runtime.range.replace(">=", "").replace("<", "")
                  .replace("10.3", "10").split(","))  # fmt: skip
    assert low <= have[0] and all(have[0] < each for each in high)
    assert found.file in {each.sha256 for each in build.files}
    assert board.sm is not None
    if found.way == "build":
        assert board.libraries or board.cuda
        assert "build" in board.ways and build.on_device.allowed and board.memory_mb >= 4000
        assert not (build.on_device.int8 and board.sm == 53)
        # By name, not by the table: Xavier went with 10.5, the Nano's Maxwell with 10.
        newest = {53: (8,), 72: (8, 10)}.get(board.sm, (8, 9, 10, 11))
        assert have[0] in newest and not (board.sm == 72 and have[:2] > [10, 4])
        return
    fitting = [each for each in build.plans if each.file == found.file and board.sm in each.sm
               and not each.host_code and each.cuda is not None
               and str(each.cuda) in cudas_of(board)]  # fmt: skip
    fitting = [each for each in fitting if fits_memory(each, board)]
    if found.way == "exact-plan":
        assert any(starts_alike(each.version, board.runtimes["tensorrt"]) for each in fitting)
    else:
        assert any(
            each.version_compatible and have[0] in ALLOWED[int(each.version.split(".")[0])]
            and any(starts_alike(each.version, lean) for lean in board.lean_runtimes)
            for each in fitting
        )  # fmt: skip
        assert "lean" in board.ways


def cudas_of(board: DeviceFacts) -> list[str]:
    return [*map(str, board.cuda)] or [board.libraries.get("cuda", "").split(".")[0]]


def fits_memory(plan: Plan, board: DeviceFacts) -> bool:
    have = board.gpu_memory_mb or (board.memory_mb if board.soc else 0)
    return plan.memory_mb is None or have >= plan.memory_mb


def starts_alike(one: str, other: str) -> bool:
    return one.split(".")[:3] == other.split(".")[:3] and one.count(".") >= 2


@given(st.sampled_from(VERSIONS), st.sampled_from(VERSIONS))
def test_one_release_is_symmetric_and_needs_three_numbers(one: str, other: str) -> None:
    assert same_release(one, other) == same_release(other, one)
    if same_release(one, other):
        assert starts_alike(one, other)


# -- the wire ------------------------------------------------------------------------------------


def test_old_facts_and_manifests_are_read_and_take_no_new_way() -> None:
    old = wire.decode(b'{"arch":"x86_64","memory_mb":1,"runtimes":{}}', DeviceFacts, "facts")
    assert (old.ways, old.soc, old.libraries) == ((), "", {})
    body = json.loads(wire.encode(release(runtime="onnxruntime")))
    for new in ("plans", "timing_caches", "on_device", "fallback"):
        del body[new]
    assert read_manifest(json.dumps(body).encode()).plans == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plans": [replace(EXACT, file="9" * 64)]}, "is not among its files"),
        ({"plans": [RTX_PLAN]}, "its runtime is tensorrt"),
        ({"timing_caches": [replace(TIMINGS, file=PLAN)]}, "timing cache"),
    ],
)
def test_a_manifest_that_names_what_it_does_not_bring_is_refused(
    change: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read_manifest(wire.encode(replace(release(EXACT), **change)))  # type: ignore[arg-type]


def test_several_plans_may_be_brought_but_one_engine() -> None:
    two = release(EXACT, replace(EXACT, file=OTHER, sm=(72,)))
    assert len(read_manifest(wire.encode(two)).plans) == 2
    assert [each.role for each in two.engine_files] == ["engine"]
