"""One adapter for TensorRT 10.x and 11.x and TensorRT for RTX: strongly typed ONNX to a plan.

The three share one API; what differs stands in :data:`KINDS`. TensorRT for RTX compiles for any SM
on any machine, without a GPU, and its timing caches do nothing since 1.2; classic TensorRT compiles
on the very GPU that the plan is for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from kedge_builder.compilers import cuda
from kedge_builder.compilers.layers import Layer, of_engine, of_network
from kedge_shared.errors import InputError
from kedge_shared.ids import sha256_hex
from kedge_shared.planfile import check_plan
from kedge_shared.plans import Plan


@dataclass(frozen=True)
class Kind:
    """What one of the compilers is called, and can.

    Attributes:
        module: Python's name of it.
        distribution: On PyPI, without ``_cuN_bindings``.
        ahead: It compiles for a GPU that is not there.
        caches: It keeps timings.
        mend: How it is installed.
    """

    module: str
    distribution: str
    ahead: bool
    caches: bool
    mend: str


KINDS: Mapping[str, Kind] = {
    "tensorrt": Kind(
        "tensorrt", "tensorrt", ahead=False, caches=True,
        mend="it comes with JetPack, or from NVIDIA for servers",
    ),
    "tensorrt-rtx": Kind(
        "tensorrt_rtx", "tensorrt_rtx", ahead=True, caches=False,
        mend="pip install 'kedge[tensorrt-rtx]'",
    ),
}  # fmt: skip

_CUDA_MAJORS = (14, 13, 12, 11)


@dataclass(frozen=True)
class Compiled:
    """A plan, and what is known of it.

    Attributes:
        data: The plan.
        plan: What it fits.
        layers: With their precisions.
        read_from: ``engine inspector``, or ``network`` where no GPU could open the plan: then
            layers are those before fusion, with the types that a strongly typed network fixes.
        timing_cache: Timings taken, or ``None``.
    """

    data: bytes
    plan: Plan
    layers: tuple[Layer, ...]
    read_from: str
    timing_cache: bytes | None


class Compiler:
    """A TensorRT that is installed here.

    Args:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.

    Raises:
        InputError: It is not installed.
    """

    def __init__(self, runtime: str) -> None:
        self.runtime, self.kind = runtime, KINDS[runtime]
        try:
            self._trt: Any = importlib.import_module(self.kind.module)
        except ImportError:
            raise InputError(f"{runtime} is not installed here", self.kind.mend) from None
        self.version = str(self._trt.__version__)

    def compile(
        self,
        onnx: bytes,
        signed: str,
        sm: tuple[int, ...],
        tick: Callable[[], None],
        *,
        timing_cache: bytes = b"",
        version_compatible: bool = False,
    ) -> Compiled:
        """Compiles a strongly typed graph.

        Args:
            onnx: The graph, with its types (:mod:`kedge_builder.compilers.halves`).
            signed: SHA-256 of the ONNX that the release signs, which ``onnx`` was made of.
            sm: What to compile for.
            tick: Called at each step.
            timing_cache: Timings of an earlier build; used where the kind keeps them.
            version_compatible: Newer releases may load the plan, through a lean runtime on the
                board: none is packed into the plan.

        Raises:
            InputError: The graph cannot be read, has an operator or needs a plugin that the
                compiler lacks, or cannot be compiled for these GPUs.
        """
        self._check_target(sm)
        trt, said = self._trt, _logger(self._trt)
        builder = trt.Builder(said)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self._parse(onnx, network, said)
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.progress_monitor = _monitor(trt, tick)
        self._aim(config, sm)
        if version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
            config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
        if self.kind.caches:
            config.set_timing_cache(config.create_timing_cache(timing_cache), False)
        built = builder.build_serialized_network(network, config)
        if built is None:
            raise InputError(f"{self._told()} does not compile the model: {said.last}")
        data = bytes(built)
        timings = bytes(config.get_timing_cache().serialize()) if self.kind.caches else None
        plan = self._plan(data, signed, sm, timings, version_compatible=version_compatible)
        check_plan(data, plan)
        layers, read_from = self._layers(network, data, said)
        return Compiled(data, plan, layers, read_from, timings)

    def _check_target(self, sm: tuple[int, ...]) -> None:
        """A plan of classic TensorRT is for the GPU it is compiled on."""
        if self.kind.ahead:
            known = {name for name in dir(self._trt.ComputeCapability) if name.startswith("SM")}
            missing = [each for each in sm if f"SM{each}" not in known]
            if missing:
                raise InputError(f"{self._told()} does not compile for SM {missing[0]}")
            return
        here = cuda.device_sm()
        if sm != (here,):
            wanted = ", ".join(map(str, sm))
            raise InputError(
                f"{self._told()} compiles for the GPU of its own machine (SM {here or 'none'}), "
                f"not for SM {wanted}"
            )

    def _parse(self, onnx: bytes, network: Any, said: Any) -> None:
        parser = self._trt.OnnxParser(network, said)
        if not parser.parse(onnx):
            raise self._refusal(parser.get_error(0) if parser.num_errors else None, said)
        for at in range(network.num_layers):
            layer = network.get_layer(at)
            if layer.type.name.startswith("PLUGIN"):
                raise InputError(
                    f"the model needs a plugin of {self.runtime} for {layer.name}",
                    "plugins are native code and are not taken; choose another model",
                )

    def _refusal(self, error: Any, said: Any) -> InputError:
        if error is None:
            return InputError(f"{self._told()} cannot read the model: {said.last}")
        why = " ".join(error.desc().split())
        if "Plugin not found" in why:
            return InputError(
                f"{self._told()} lacks the operator {error.node_operator()} "
                f"of node {error.node_name()}",
                "choose another runtime or another model",
            )
        node = f"{error.node_operator()} {error.node_name()}".strip()
        where = f"{node}: " if node else ""
        return InputError(f"{self._told()} cannot read the model: {where}{why[:200]}")

    def _aim(self, config: Any, sm: tuple[int, ...]) -> None:
        if self.kind.ahead:
            config.num_compute_capabilities = len(sm)
            for at, each in enumerate(sm):
                config.set_compute_capability(getattr(self._trt.ComputeCapability, f"SM{each}"), at)

    def _plan(
        self,
        data: bytes,
        signed: str,
        sm: tuple[int, ...],
        timings: bytes | None,
        *,
        version_compatible: bool,
    ) -> Plan:
        flags = ("strongly-typed", "float16")
        more = ("version-compatible", "exclude-lean-runtime") if version_compatible else ()
        return Plan(
            file=sha256_hex(data), runtime=self.runtime, version=self.version, onnx=signed, sm=sm,
            cuda=self.cuda_major(), flags=flags + more,
            timing_cache=sha256_hex(timings) if timings else None,
            version_compatible=version_compatible,
        )  # fmt: skip

    def cuda_major(self) -> int:
        """Returns the major of the CUDA that the compiler is of.

        Raises:
            InputError: It cannot be told; a plan without it would run on no board.
        """
        for each in _CUDA_MAJORS:
            try:
                metadata.version(f"{self.kind.distribution}_cu{each}_bindings")
            except metadata.PackageNotFoundError:
                continue
            return each
        found = cuda.toolkit_major()
        if found is None:
            raise InputError(f"the CUDA of {self._told()} cannot be told", "set up /usr/local/cuda")
        return found

    def _layers(self, network: Any, data: bytes, said: Any) -> tuple[tuple[Layer, ...], str]:
        """Asks the engine itself where a GPU can open the plan, else the network."""
        runtime = self._trt.Runtime(said)
        engine = runtime.deserialize_cuda_engine(data) if cuda.device_sm() else None
        if engine is None:
            return of_network(network), "network"
        inspector = engine.create_engine_inspector()
        told = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return of_engine(told), "engine inspector"

    def _told(self) -> str:
        return f"{self.runtime} {self.version}"


def _logger(trt: Any) -> Any:
    """Returns a logger that keeps the last error instead of printing it."""

    class Quiet(trt.ILogger):  # type: ignore[misc]  # the module is known at run time alone
        """Keeps the last error."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = "no reason was given"

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, from any of its threads."""
            if severity in {trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR}:
                self.last = " ".join(message.split())[:200]

    return Quiet()


def _monitor(trt: Any, tick: Callable[[], None]) -> Any:
    """Returns a progress monitor that ticks at each step of each phase."""

    class Steps(trt.IProgressMonitor):  # type: ignore[misc]
        """Passes steps on; phases nest and are not told apart."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step is done; false would stop the build."""
            tick()
            return True

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends."""

    return Steps()
