"""Names that builder and agent take from TensorRT, looked up in the bindings it is started with.

Run with the real extension module of a bindings wheel and libraries that do nothing: its classes
are all there, and none of them works. Prints one line for each name that is missing.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

#: Class → what is asked of its objects.
MEMBERS = {
    "Builder": ("create_network", "create_builder_config", "build_serialized_network"),
    "INetworkDefinition": ("num_layers", "get_layer", "num_outputs", "get_output"),
    "ILayer": ("name", "type", "num_inputs", "num_outputs", "get_input", "get_output"),
    "ITensor": ("name", "dtype"),
    "OnnxParser": ("parse", "num_errors", "get_error"),
    "ParserError": ("desc", "node_name", "node_operator"),
    "IBuilderConfig": ("profiling_verbosity", "progress_monitor", "set_flag", "create_timing_cache",
                       "set_timing_cache", "get_timing_cache", "set_memory_pool_limit"),
    "ITimingCache": ("serialize",),
    "Runtime": ("deserialize_cuda_engine", "engine_host_code_allowed", "load_runtime"),
    "ICudaEngine": ("create_engine_inspector", "create_execution_context", "num_io_tensors",
                    "get_tensor_name", "get_tensor_mode", "get_tensor_dtype",
                    "device_memory_size_v2"),
    "IExecutionContext": ("execute_async_v3", "set_tensor_address", "set_input_shape",
                          "get_tensor_shape"),
    "EngineInspector": ("get_engine_information",),
    "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
    "ILogger": ("log", "Severity"),
}  # fmt: skip
#: Method → how pybind11 tells its arguments in the docstring.
SIGNATURES = {
    ("IBuilderConfig", "set_timing_cache"): ("cache:", "ignore_mismatch: bool"),
    ("IBuilderConfig", "create_timing_cache"): ("serialized_timing_cache:",),
    ("Builder", "build_serialized_network"): ("network:", "config:"),
    ("Builder", "create_network"): ("flags:",),
    ("Runtime", "deserialize_cuda_engine"): ("serialized_engine:",),
    ("Runtime", "load_runtime"): ("path: str",),
    ("IBuilderConfig", "set_memory_pool_limit"): ("pool:", "pool_size:"),
    ("IExecutionContext", "execute_async_v3"): ("stream_handle:",),
    ("IExecutionContext", "set_tensor_address"): ("name: str", "memory:"),
    ("IExecutionContext", "set_input_shape"): ("name: str", "shape:"),
    ("EngineInspector", "get_engine_information"): ("format:",),
}


def used(source: str) -> set[str]:
    """Returns the dotted names behind ``trt.`` and ``self._trt.`` in a module's source."""
    found = set()
    for each in ast.walk(ast.parse(source)):
        node, parts = each, list[str]()
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name):
            dotted = [node.id, *reversed(parts)]
            if dotted[0] == "trt":
                found.add(".".join(dotted[1:]))
            elif dotted[:2] == ["self", "_trt"]:
                found.add(".".join(dotted[2:]))
    return found - {""}


def load(extension: Path) -> Any:
    spec = importlib.util.spec_from_file_location(extension.stem, extension)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def missing(module: Any, sources: list[str], *, skip: tuple[str, ...]) -> list[str]:
    names = {f"{kind}.{member}" for kind, members in MEMBERS.items() for member in members}
    lines = []
    for name in sorted(names.union(*map(used, sources))):
        if name.startswith(skip):
            continue
        place = module
        for part in name.split("."):
            if not hasattr(place, part):
                lines.append(name)
                break
            place = getattr(place, part)
    for (kind, method), words in SIGNATURES.items():
        told = getattr(getattr(module, kind), method).__doc__ or ""
        lines += [f"{kind}.{method}({word})" for word in words if word not in told]
    return lines


if __name__ == "__main__":
    real = load(Path(sys.argv.pop(1)))
    # The package's __init__ adds __version__; capabilities are TensorRT for RTX's alone.
    others: tuple[str, ...] = ("__version__", "ComputeCapab")
    if hasattr(real.BuilderFlag, "FP16") == (int(sys.argv.pop(1)) >= 11):
        print("BuilderFlag.FP16: it says which releases have flags for precisions")
    if not hasattr(real.BuilderFlag, "FP16"):
        others = (*others, "BuilderFlag.FP16", "BuilderFlag.INT8")
    sources = [Path(each).read_text() for each in sys.argv[1:]]
    for line in missing(real, sources, skip=others):
        print(line)
    print("looked")
