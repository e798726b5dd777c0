"""What builds plans in TensorRT's bindings, without TensorRT; beside ``fake_tensorrt``, by path.

An "ONNX" here is JSON: layers of (name, kind, inputs, outputs), the network's outputs, what is bad.
"""

import ctypes
import json
import weakref
from enum import Enum

from fake_tensorrt import DataType, ILogger, plan_of, started


class _Tensor:
    def __init__(self, name):
        self.name, self.dtype = name, DataType.float32


class _Layer:
    def __init__(self, tensors, name, kind, given, made):
        self.name, self.type, self.precision, self.outputs = name, "LayerType." + kind, None, {}
        self._given, self._made = (
            [tensors[each] for each in given],
            [tensors[each] for each in made],
        )
        self.num_inputs, self.num_outputs = len(given), len(made)

    def get_input(self, at):
        return self._given[at]

    def get_output(self, at):
        return self._made[at]

    def set_output_type(self, at, kind):
        self.outputs[at] = kind


class _Network:
    def __init__(self, flags):
        self.flags, self.layers, self.ends, self.told = flags, [], [], {}

    @property
    def num_layers(self):
        return len(self.layers)

    @property
    def num_outputs(self):
        return len(self.ends)

    def get_layer(self, at):
        return self.layers[at]

    def get_output(self, at):
        return self.ends[at]


class _ParserError:
    def desc(self):
        return "No importer registered for op: Frobnicate"


class _Parser:
    def __init__(self, network, logger):
        self._network, self.num_errors = network, 0

    def parse(self, data):
        told = json.loads(bytes(data).decode())
        if told.get("bad") == "operator":
            self.num_errors = 1
            return False
        names = {name for each in told["layers"] for name in each[2] + each[3]}
        tensors = {name: _Tensor(name) for name in names}
        self._network.layers = [_Layer(tensors, *each) for each in told["layers"]]
        self._network.ends = [tensors[each] for each in told["outputs"]]
        self._network.told = told
        return True

    def get_error(self, at):
        return _ParserError()


class _Config:
    def __init__(self):
        self.flags, self.cache, self.space = [], None, 0

    def set_flag(self, flag):
        self.flags.append(flag.name)

    def create_timing_cache(self, data):
        return bytes(data)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        if cache.startswith(b"another"):
            return False
        self.cache = cache
        return True


class _PooledConfig(_Config):
    """From 8.4 on."""

    def set_memory_pool_limit(self, pool, size):
        self.space = size


class _WorkspaceConfig(_Config):
    """Before."""

    @property
    def max_workspace_size(self):
        return self.space

    @max_workspace_size.setter
    def max_workspace_size(self, size):
        self.space = size


class _Builder:
    def __init__(self, logger):
        started(self.module, logger)
        self._logger = logger
        self._holds(self)

    def _holds(self, made):
        self.module.holds.append(weakref.ref(made))
        return made

    def create_network(self, flags):
        return self._holds(_Network(flags))

    def create_builder_config(self):
        return self._holds(self.module.config())

    def _say(self, how, message):
        self._logger.log(how, message)

    def build_serialized_network(self, network, config):
        bad = network.told.get("bad")
        if bad in ("build", "memory", "workspace"):
            severe = ILogger.Severity
            if bad == "memory":
                # As TensorRT 8 spells it.
                self._say(
                    severe.WARNING, "Skipping tactic 3 due to insuficient memory on requested"
                )
            more = " due to insufficient workspace" if bad == "workspace" else ""
            self._say(severe.ERROR, "10: could not find any implementation for node conv" + more)
            self._say(severe.INFO, "out of memory is no error here")
            if int(self.module.__version__.split(".")[0]) < 10:
                said = "buildSerializedNetwork::636] Error Code 2: (Assertion engine != nullptr)"
                self._say(severe.ERROR, said)
            return None
        while bad == "endless":
            pass
        if bad == "crash":
            ctypes.string_at(0)
        floats = sorted(each.name for each in network.layers if each.precision is not None)
        return plan_of(
            bad=network.told.get("plan", ""),
            built={
                "flags": config.flags, "float": floats, "network": network.flags,
                "cache": (config.cache or b"").decode(), "space": config.space,
            }
        )  # fmt: skip


class _Kinds(Enum):
    EXPLICIT_BATCH, STRONGLY_TYPED = range(2)

    def __int__(self):
        return int(self.value)


class _StrongKinds(Enum):
    STRONGLY_TYPED = 1

    def __int__(self):
        return int(self.value)


class _Flags(Enum):
    FP16, INT8, OBEY_PRECISION_CONSTRAINTS = range(3)


class _FewFlags(Enum):
    REFIT = 0


class _Pools(Enum):
    WORKSPACE = 0


def builds(found):
    """Adds what a builder needs to a module."""
    strong = int(found.__version__.split(".")[0]) >= 11
    found.float16, found.holds = DataType.float16, []
    found.Builder, found.OnnxParser = type("Builder", (_Builder,), {"module": found}), _Parser
    if [int(each) for each in found.__version__.split(".")[:2]] < [8, 4]:
        found.config = _WorkspaceConfig
    else:
        found.config, found.MemoryPoolType = _PooledConfig, _Pools
    found.NetworkDefinitionCreationFlag = _StrongKinds if strong else _Kinds
    found.BuilderFlag = _FewFlags if strong else _Flags
    return found
