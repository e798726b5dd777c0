"""Names that the adapter takes from TensorRT, looked up in the bindings it is started with.

Run with the real extension module of a bindings wheel and libraries that do nothing: its classes
are all there, and none of them works. Prints one line for each name that is missing.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

#: Class → what the adapter asks of its objects.
MEMBERS = {
    "Builder": ("create_network", "create_builder_config", "build_serialized_network"),
    "INetworkDefinition": ("num_layers", "get_layer"),
    "ILayer": ("name", "type", "num_inputs", "num_outputs", "get_input", "get_output"),
    "ITensor": ("name", "dtype"),
    "OnnxParser": ("parse", "num_errors", "get_error"),
    "ParserError": ("desc", "node_name", "node_operator"),
    "IBuilderConfig": ("profiling_verbosity", "progress_monitor", "set_flag", "create_timing_cache",
                       "set_timing_cache", "get_timing_cache"),
    "ITimingCache": ("serialize",),
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": ("create_engine_inspector",),
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


def missing(module: Any, source: str, *, skip: tuple[str, ...]) -> list[str]:
    names = {f"{kind}.{member}" for kind, members in MEMBERS.items() for member in members}
    lines = []
    for name in sorted(names | used(source)):
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
    real = load(Path(sys.argv[1]))
    # The package's __init__ adds __version__; capabilities are TensorRT for RTX's alone.
    for line in missing(real, Path(sys.argv[2]).read_text(), skip=("__version__", "ComputeCapab")):
        print(line)
    print("looked")
