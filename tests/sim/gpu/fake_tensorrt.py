"""TensorRT's bindings without TensorRT, 8.2 to 11, for every Python from 3.6 on.

A plan is ``ftrt``, 60 bytes and a JSON object: the tensors (name, input or not, shape, kind) and
how the engine misbehaves. Only the API of the version that is asked for is there.
"""

import ctypes
import json
import struct
import threading
import types
import weakref
from enum import Enum


def plan_of(**more):
    """Returns a plan; by default a detector of two classes at 32 px that repeats its input."""
    told = {
        "tensors": [
            ["images", True, [1, 3, 32, 32], "float32"],
            ["output0", False, [1, 6, 16], "float32"],
        ],
        "scratch": 1 << 20,
        "bad": "",
        "version": "",
    }
    told.update(more)
    return b"ftrt" + bytes(60) + json.dumps(told).encode()


def header_of(data):
    """Returns a plan behind the header that Ultralytics writes."""
    told = json.dumps({"description": "YOLO", "names": {"0": "cat"}}).encode()
    return struct.pack("<I", len(told)) + told + data


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self):
        self.started = True


class _Severe:
    """What several classes need to know."""

    def __init__(self, module, logger):
        self.module, self.logger = module, logger

    def error(self, message):
        self.logger.log(ILogger.Severity.WARNING, "a warning is no reason")
        self.logger.log(ILogger.Severity.ERROR, message)


def started(module, logger):
    """What runtime and builder begin with: TensorRT keeps its first logger, and asks CUDA."""
    if module.first_logger is None:
        module.first_logger = weakref.ref(logger)
    assert logger.started, "TensorRT's own constructor was not called"
    assert module.first_logger() is not None, "the logger that TensorRT uses is gone"
    status = module.cudart.starts
    if status:
        logger.log(ILogger.Severity.WARNING, "Unable to determine GPU memory usage")
        logger.log(
            ILogger.Severity.WARNING,
            "CUDA initialization failure with error: %d. Please check your CUDA installation"
            % status,
        )
        raise TypeError("pybind11::init(): factory function returned nullptr")


class Runtime:
    def __init__(self, logger):
        started(self.module, logger)
        self._say = _Severe(self.module, logger)
        self.loader = lambda: self
        # Off in TensorRT; here it must be turned off.
        self.engine_host_code_allowed = True

    def deserialize_cuda_engine(self, data):
        found = self._deserialized(data)
        if found is None and int(self.module.__version__.split(".")[0]) < 10:
            self._say.error(
                "4: [runtime.cpp::deserializeCudaEngine::50] Error Code 4: Internal Error"
                " (Engine deserialization failed.)"
            )
        return found

    def _deserialized(self, data):
        assert self.loader() is not None, "the runtime that loaded it is gone"
        assert not getattr(self, "engine_host_code_allowed", False)
        for each in getattr(self.module, "holds", ()):
            assert each() is None, "builder, network and config still take their memory"
        whole = bytes(data)
        if whole[:4] != b"ftrt":
            self._say.error("Magic tag does not match")
            return None
        told = json.loads(whole[64:].decode())
        if told["version"] not in ("", self.module.__version__):
            self._say.error("Version tag does not match")
            return None
        if told["bad"] == "throws":
            raise RuntimeError("std::exception")
        if told["bad"] == "plugin":
            self._say.error("getPluginCreator could not find plugin: EfficientNMS_TRT")
            return None
        if told["bad"] == "short":
            if self.module.cudart.meanwhile:
                self.module.cudart.meanwhile()
            self._say.error("Requested amount of GPU memory could not be allocated: OutOfMemory")
            return None
        if told["bad"] == "own thread":
            saying = threading.Thread(target=self._say.error, args=("the GPU fell off the bus",))
            saying.start()
            saying.join()
            return None
        return self.module.ICudaEngine(self._say, told)


class _LoadingRuntime(Runtime):
    """From 8.6 on: it loads another release's lean runtime, by the name of its library."""

    def load_runtime(self, path):
        release = path.rpartition("libnvinfer_lean.so.")[2]
        if not release or not release[0].isdigit():
            self._say.error("cannot open shared object file")
            return None
        older = types.SimpleNamespace(**vars(self.module))
        older.__version__ = release
        found = type("Lean", (Runtime,), {"module": older})(self._say.logger)
        found.loader = weakref.ref(self)
        return found


class _Engine:
    def __init__(self, say, told):
        self._say, self.told = say, told

    def _kind(self, at):
        return self._say.module.DataType[self.told["tensors"][at][3]]

    def create_execution_context(self):
        if self.told["bad"] == "context":
            self._say.error("CUDA error 2: out of memory")
            return None
        return self._say.module.IExecutionContext(self._say, self.told)


class _Context:
    def __init__(self, say, told):
        self._say, self.told, self.runs = say, told, 0
        self.shapes = [list(each[2]) for each in told["tensors"]]

    def _fix(self, at, shape):
        wanted = self.told["tensors"][at][2]
        if len(wanted) != len(shape) or any(a not in (-1, b) for a, b in zip(wanted, shape)):
            self._say.error("shape is out of the profile")
            return False
        self.shapes[at] = list(shape)
        return True

    def _run(self, addresses, stream):
        cuda = self._say.module.cudart
        assert cuda.live[stream][0] == "stream", "it must run on the session's own stream"
        for address in addresses:
            assert cuda.live[address][0] == "device"
        self.runs += 1
        bad, at = self.told["bad"], self.told.get("at", 3)
        if bad == "refuses" and self.runs == at:
            self._say.error("enqueue failed")
            return False
        if bad == "mutters" and self.runs < at:
            self._say.error("OutOfMemory, and another tactic will do")
        if bad == "mutters" and self.runs == at:
            return False
        if bad == "launch" and self.runs == at:
            cuda.pending = 700
            self._say.error("Cuda Runtime (an illegal memory access was encountered)")
            return False
        if bad == "async" and self.runs >= at:
            cuda.pending = 700
        if bad == "exit" and self.runs == at:
            import os

            os._exit(3)
        cuda.enqueue(addresses, lambda: self._compute(addresses))
        return True

    def _compute(self, addresses):
        given = next(at for at, each in enumerate(self.told["tensors"]) if each[1])
        for at, each in enumerate(self.told["tensors"]):
            if not each[1]:
                count = 1
                for size in self.shapes[at]:
                    count *= size
                ctypes.memmove(addresses[at], addresses[given], 4 * count)


class _NumberedEngine(_Engine):
    @property
    def num_bindings(self):
        return len(self.told["tensors"])

    @property
    def device_memory_size(self):
        return self.told["scratch"]

    def get_binding_name(self, at):
        return self.told["tensors"][at][0]

    def get_binding_index(self, name):
        return [each[0] for each in self.told["tensors"]].index(name)

    def binding_is_input(self, at):
        return self.told["tensors"][at][1]

    def get_binding_dtype(self, at):
        return self._kind(at)


class _NumberedContext(_Context):
    def get_binding_shape(self, at):
        return tuple(self.shapes[at])

    def set_binding_shape(self, at, shape):
        return self._fix(at, shape)

    def execute_async_v2(self, bindings, stream_handle):
        return self._run(list(bindings), stream_handle)


class _NamedEngine(_Engine):
    @property
    def num_io_tensors(self):
        return len(self.told["tensors"])

    @property
    def device_memory_size_v2(self):
        return self.told["scratch"]

    def get_tensor_name(self, at):
        return self.told["tensors"][at][0]

    def _at(self, name):
        return [each[0] for each in self.told["tensors"]].index(name)

    def get_tensor_mode(self, name):
        modes = self._say.module.TensorIOMode
        return modes.INPUT if self.told["tensors"][self._at(name)][1] else modes.OUTPUT

    def get_tensor_dtype(self, name):
        return self._kind(self._at(name))


class _NamedContext(_Context):
    def __init__(self, say, told):
        super().__init__(say, told)
        self.addresses = {}

    def _at(self, name):
        return [each[0] for each in self.told["tensors"]].index(name)

    def get_tensor_shape(self, name):
        return tuple(self.shapes[self._at(name)])

    def set_input_shape(self, name, shape):
        return self._fix(self._at(name), shape)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return self.told["bad"] != "address"

    def execute_async_v3(self, stream_handle):
        return self._run([self.addresses[each[0]] for each in self.told["tensors"]], stream_handle)


class DataType(Enum):
    float32, float16, int8, int32 = range(4)


class TensorIOMode(Enum):
    NONE, INPUT, OUTPUT = range(3)


def module(version, cudart):
    """Returns the bindings of a version, over a fake CUDA."""
    found = types.ModuleType("tensorrt")
    numbered = [int(each) for each in version.split(".")[:2]] < [8, 5]
    found.__version__, found.cudart, found.first_logger = version, cudart, None
    found.ILogger, found.DataType, found.float32 = ILogger, DataType, DataType.float32
    loads = [int(each) for each in version.split(".")[:2]] >= [8, 6]
    found.Runtime = type("Runtime", (_LoadingRuntime if loads else Runtime,), {"module": found})
    found.ICudaEngine = _NumberedEngine if numbered else _NamedEngine
    found.IExecutionContext = _NumberedContext if numbered else _NamedContext
    if not numbered:
        found.TensorIOMode = TensorIOMode
    return found
