"""From the signed ONNX to a plan of this board, by itself on every Python from 3.6 on.

``python3 plan_maker.py MODULE`` reads a job on standard input, the file descriptors of the ONNX and
of the plan to write among it, and writes one line of JSON: ``{"ok": true, …}`` or ``{"error": …}``.
It has no right but to its descriptors and the GPU, and the lowest priority.

INT8 is where the ONNX has quantizers; what is left becomes FP16 where the release allows it, save
the decode behind the last convolutions, which stays FP32: at 640 px a box coordinate in FP16 has
steps of half a pixel. From TensorRT 11 on there are no flags for it: types are the ONNX's.
"""

import importlib
import json
import mmap
import os
import re
import sys
from typing import Any, Dict, List, Set, Tuple

#: Larger than any scratch space that a tactic of a detector asks for; boards bring less themselves.
_WORKSPACE_BYTES = 1 << 30
_STRONG = 11
#: Layers of which nothing is computed in floating point.
_NO_NUMBERS = ("CONSTANT", "SHAPE")
#: Layers that hand numbers on as they are.
_MOVES = ("SHUFFLE", "SLICE", "IDENTITY", "CAST")


#: How the bindings fail, want of the board's memory among it.
_VENDOR = (TypeError, RuntimeError, ValueError, OSError, MemoryError)
#: As engine_host.py has it; a layer for whose tactics memory was short has "no implementation".
_SHORT = re.compile(r"(?i)out ?of ?mem|allocat|suff?icient (mem|work)|memory is ins|error:? 2\b")
_MOST_LINES = 64


class NotMade(Exception):
    """TensorRT makes no plan of this; one line.

    Attributes:
        board: The board is to blame: memory is short, or TensorRT does not start.
    """

    def __init__(self, why: str, board: bool = False) -> None:
        super().__init__(why)
        self.board = board


def make(trt: Any, job: Dict[str, Any]) -> Dict[str, Any]:
    """Makes the plan of a job and returns what is to be told of it.

    Args:
        trt: The bindings' module.
        job: ``onnx`` and ``plan`` are descriptors, ``cache`` one or -1; ``int8`` says that the ONNX
            has quantizers, ``half`` that the rest may be FP16, ``workspace_bytes`` limits scratch
            space.

    Raises:
        NotMade: It cannot be read, needs a plugin, or cannot be built.
    """
    said = logger(trt)
    try:
        plan, flags = _built(trt, said, job)
    except _VENDOR as error:
        raise _refused(said, "TensorRT builds no plan", error) from None
    _write(job["plan"], memoryview(plan))
    return {"ok": True, "version": str(trt.__version__), "flags": flags,
            "memory_bytes": _memory(trt, said, plan)}  # fmt: skip


def _built(trt: Any, said: Any, job: Dict[str, Any]) -> Tuple[Any, List[str]]:
    """Returns a plan and the flags it was built with; what built it is freed by then."""
    builder = _builder(trt, said)
    strong = int(trt.__version__.split(".")[0]) >= _STRONG or not hasattr(trt.BuilderFlag, "FP16")
    network = builder.create_network(_network_flags(trt, strong))
    _parse(trt, network, said, _read(job["onnx"]))
    config = builder.create_builder_config()
    _limit(trt, config, int(job.get("workspace_bytes", _WORKSPACE_BYTES)))
    flags = ["strongly-typed"] if strong else _flags(trt, config, network, job)
    if job["cache"] >= 0 and hasattr(config, "create_timing_cache"):
        cache = config.create_timing_cache(_read(job["cache"]))
        # One of another GPU or release is refused, and the build goes on without.
        if cache is not None and config.set_timing_cache(cache, False):
            flags.append("timing-cache")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refused(said, "TensorRT builds no plan")
    return plan, flags


def _builder(trt: Any, said: Any) -> Any:
    try:
        return trt.Builder(said)
    except _VENDOR as error:
        raise NotMade(str(_refused(said, "TensorRT does not start", error)), board=True) from None


def logger(trt: Any) -> Any:
    """Returns a logger that keeps errors instead of printing them."""
    severity = trt.ILogger.Severity

    class Quiet(trt.ILogger):  # type: ignore[misc]  # the module is known at run time alone
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: List[str] = []
            self.warning, self.short = "", False

        def log(self, how: Any, message: str) -> None:
            """Called by TensorRT, from any of its threads."""
            line = " ".join(message.split())[:1000]
            if how == severity.WARNING:
                self.warning = line
            elif how in (severity.ERROR, severity.INTERNAL_ERROR):
                self.errors += [line] if len(self.errors) < _MOST_LINES else []
            else:
                return
            self.short = self.short or bool(_SHORT.search(line))

    return Quiet()


def _refused(said: Any, what: str, error: Any = "") -> NotMade:
    """Returns TensorRT's first error, which says most, else its last warning or the bindings'."""
    told = (*said.errors, said.warning, str(error), "no reason was given")
    why = " ".join(next(each for each in told if each).split())
    short = said.short or isinstance(error, MemoryError) or bool(_SHORT.search(str(error)))
    return NotMade("%s: %s" % (what, why[:200]), board=short)


def _network_flags(trt: Any, strong: bool) -> int:
    kinds = trt.NetworkDefinitionCreationFlag
    if strong:
        return 1 << int(getattr(kinds, "STRONGLY_TYPED", 0))
    # Without meaning, and gone, from 10 on.
    return 1 << int(kinds.EXPLICIT_BATCH) if hasattr(kinds, "EXPLICIT_BATCH") else 0


def _parse(trt: Any, network: Any, said: Any, onnx: bytes) -> None:
    parser = trt.OnnxParser(network, said)
    if not parser.parse(onnx):
        if parser.num_errors:  # its own word; what it logs says where in its code
            said.errors.insert(0, parser.get_error(0).desc())
        raise _refused(said, "TensorRT cannot read the model")
    for at in range(network.num_layers):
        layer = network.get_layer(at)
        if _kind(layer).startswith("PLUGIN"):
            raise NotMade("the model needs a plugin for %s; plugins are not taken" % layer.name)


def _flags(trt: Any, config: Any, network: Any, job: Dict[str, Any]) -> List[str]:
    """Allows lower precisions, and none of them in the decode; returns what was set."""
    allowed: List[str] = []
    if job["half"]:
        config.set_flag(trt.BuilderFlag.FP16)
        allowed.append("float16")
    if job["int8"]:
        config.set_flag(trt.BuilderFlag.INT8)
        allowed.append("int8")
    if not allowed:
        return ["float32"]
    exact = "OBEY_PRECISION_CONSTRAINTS"  # from 8.2 on
    config.set_flag(getattr(trt.BuilderFlag, exact, getattr(trt.BuilderFlag, "STRICT_TYPES", None)))
    for layer in decode_of(network):
        layer.precision = trt.float32
        for at in range(layer.num_outputs):
            if layer.get_output(at).dtype in (trt.float32, trt.float16):
                layer.set_output_type(at, trt.float32)
    return [*allowed, "decode-float32"]


def decode_of(network: Any) -> List[Any]:
    """Returns the layers between the outputs and the last convolutions in front of them."""
    makers: Dict[str, Any] = {}
    for at in range(network.num_layers):
        layer = network.get_layer(at)
        for out in range(layer.num_outputs):
            makers[layer.get_output(out).name] = layer
    open_ends = [network.get_output(at).name for at in range(network.num_outputs)]
    found: List[Any] = []
    seen: Set[str] = set()
    while open_ends:
        maker = makers.get(open_ends.pop())
        if maker is None or maker.name in seen or _ends(maker, makers):
            continue
        seen.add(maker.name)
        if not _kind(maker).startswith(_NO_NUMBERS):
            found.append(maker)
        given = (maker.get_input(at) for at in range(maker.num_inputs))
        open_ends += [each.name for each in given if each is not None]
    return found


def _ends(layer: Any, makers: Dict[str, Any]) -> bool:
    """Says whether the decode ends here: at a convolution that is not DFL's, which reads a Softmax.

    Between the two something may be moved about, by layers that compute nothing.
    """
    if _kind(layer) != "CONVOLUTION":
        return False
    maker = makers.get(layer.get_input(0).name)
    while maker is not None and _kind(maker).startswith(_MOVES):
        maker = makers.get(maker.get_input(0).name)
    return maker is None or _kind(maker) != "SOFTMAX"


def _limit(trt: Any, config: Any, size: int) -> None:
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    else:
        config.max_workspace_size = size


def _memory(trt: Any, said: Any, plan: Any) -> int:
    """Returns what the engine says that it takes besides its weights; 0 if it cannot be asked."""
    try:
        runtime = trt.Runtime(said)
        if hasattr(runtime, "engine_host_code_allowed"):
            runtime.engine_host_code_allowed = False
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            return 0
        told = getattr(engine, "device_memory_size_v2", None)
        return int(engine.device_memory_size if told is None else told)
    except _VENDOR:  # the plan is made; where this fails, preflight will tell
        return 0


def _kind(layer: Any) -> str:
    return str(layer.type).split(".")[-1]


def _read(fd: int) -> bytes:
    if not os.fstat(fd).st_size:
        return b""
    with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as held:
        return bytes(held)


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def main() -> None:
    """Makes one plan."""
    job = json.loads(sys.stdin.read())
    answer = os.dup(1)
    os.dup2(2, 1)  # what a vendor prints must not end up in the answer
    try:
        told = make(importlib.import_module(sys.argv[1]), job)
    except NotMade as error:
        told = {"ok": False, "error": str(error), "board": error.board}
    os.write(answer, json.dumps(told).encode())


if __name__ == "__main__":
    main()
