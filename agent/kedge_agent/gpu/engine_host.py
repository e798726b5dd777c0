"""TensorRT on CUDA in one file without dependencies, for every Python from 3.6 on.

JetPack 4 and 5 bring TensorRT 8 with bindings for their own Python alone, 3.6 and 3.8, on which no
agent runs. There this file is the engine's process: ``python3 engine_host.py SOCKET_FD``; it speaks
kedge_agent.hosting.wire, and nothing else of Kedge is needed. Where the bindings import beside the
agent, :mod:`kedge_agent.runtimes.tensorrt` takes :class:`Session` from here.

TensorRT up to 8.4 numbers its tensors, from 8.5 on they have names: :class:`_Numbered` and
:class:`_Named`. Nothing here registers a plugin or allows an engine to bring code for the host.
"""

import ctypes
import functools
import importlib
import json
import mmap
import operator
import os
import re
import socket
import struct
import sys
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple, Type

HEADER = struct.Struct("<4sHHQ")
MAGIC, VERSION = b"KDGE", 2
LOAD, READY, INFER, ANSWER, FAILED = 1, 2, 3, 4, 5
ENGINE, MEMORY, LOST = 1, 2, 3
_MESSAGE_BYTES, _MOST_DESCRIPTORS, _MOST_LINES = 65536, 8, 64
_LIBRARIES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0",
              "libcudart.so.10.2", "/usr/local/cuda/lib64/libcudart.so")  # fmt: skip
#: What an engine holds → how it is made (flags or bytes), and freed; pinned is the host's memory.
_KINDS: Dict[str, Tuple[str, Any, str]] = {
    "stream": ("cudaStreamCreateWithFlags", ctypes.c_uint, "cudaStreamDestroy"),
    "event": ("cudaEventCreateWithFlags", ctypes.c_uint, "cudaEventDestroy"),
    "device": ("cudaMalloc", ctypes.c_size_t, "cudaFree"),
    "pinned": ("cudaMallocHost", ctypes.c_size_t, "cudaFreeHost"),
}
#: Flags: a stream that waits for no other, and an event whose wait sleeps instead of spinning.
NON_BLOCKING, SLEEPING = 1, 3


class EngineFault(Exception):
    """TensorRT or CUDA does not do what an engine needs; one line."""


class OutOfMemory(EngineFault):
    """There is not enough memory."""


class ContextLost(EngineFault):
    """CUDA works no more in this process."""


#: cudaError → its kind. After most of them nothing of this process works on the GPU any more.
_FAULTS: Dict[int, Type[EngineFault]] = {2: OutOfMemory}
_STICKY = (4, 46, 214, 220, 226, 700, 702, 709, 710, *range(714, 720), 721, 999)
_FAULTS.update(dict.fromkeys(_STICKY, ContextLost))
#: How the bindings fail: a constructor of theirs that gets nothing from TensorRT is a TypeError.
_VENDOR = (TypeError, RuntimeError, ValueError, OSError, MemoryError)
#: How TensorRT says that memory is short; one way is misspelt, and CUDA's error 2 is that too.
_SHORT = re.compile(r"(?i)out ?of ?mem|allocat|suff?icient (mem|work)|memory is ins|error:? 2\b")


class Cuda:
    """The part of CUDA's runtime API that an engine needs: of ``library``, or of the system's."""

    def __init__(self, library: Any = None) -> None:
        self._library = library if library is not None else find_library()
        self._library.cudaGetErrorString.restype = ctypes.c_char_p

    def make(self, kind: str, how: int) -> int:
        """Makes a stream or an event with flags, or takes so many bytes of memory."""
        name, number, _ = _KINDS[kind]
        found = ctypes.c_void_p()
        self.do(name, ctypes.byref(found), number(how))
        return found.value or 0

    def free(self, kind: str, handle: int) -> None:
        """Gives back what was made; a context that is lost took it along."""
        getattr(self._library, _KINDS[kind][2])(ctypes.c_void_p(handle))

    def copy(self, to: int, source: int, size: int, stream: int, up: bool) -> None:
        """Begins to copy pinned memory to the GPU, or back."""
        self.do("cudaMemcpyAsync", ctypes.c_void_p(to), ctypes.c_void_p(source),
                 ctypes.c_size_t(size), ctypes.c_int(1 if up else 2),
                 ctypes.c_void_p(stream))  # fmt: skip

    def wait(self, event: int, stream: int) -> None:
        """Waits for what a stream was given so far; its errors come out here."""
        self.do("cudaEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))
        self.do("cudaEventSynchronize", ctypes.c_void_p(event))

    def do(self, name: str, *arguments: Any) -> None:
        """Calls one of its functions and raises its error."""
        status = int(getattr(self._library, name)(*arguments))
        if not status:
            return
        self._library.cudaGetLastError()  # so that the next call is not blamed for it
        why = self._library.cudaGetErrorString(status) or b"unknown error"
        line = "%s: %s (%d)" % (name, why.decode(errors="replace"), status)
        raise _FAULTS.get(status, EngineFault)(line)


def find_library() -> Any:
    """Returns libcudart."""
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise EngineFault("CUDA's runtime (libcudart) is not on this board")


class Tensor(NamedTuple):
    """An input or output: its bytes, and the addresses of its pinned and its GPU memory."""

    name: str
    shape: Tuple[int, ...]
    size: int
    host: int
    device: int


class _Named:
    """An engine from 8.5 on."""

    def __init__(self, engine: Any, context: Any) -> None:
        self._engine, self._context = engine, context

    def tensors(self, trt: Any) -> List[Tuple[str, bool]]:
        names = [self._engine.get_tensor_name(at) for at in range(self._engine.num_io_tensors)]
        given = trt.TensorIOMode.INPUT
        return [(each, self._engine.get_tensor_mode(each) == given) for each in names]

    def kind(self, name: str) -> Any:
        return self._engine.get_tensor_dtype(name)

    def shape(self, name: str) -> Tuple[int, ...]:
        return tuple(self._context.get_tensor_shape(name))

    def fix(self, name: str, shape: Sequence[int]) -> bool:
        return bool(self._context.set_input_shape(name, tuple(shape)))

    def bind(self, tensor: Tensor) -> bool:
        return bool(self._context.set_tensor_address(tensor.name, tensor.device))

    def run(self, stream: int) -> bool:
        return bool(self._context.execute_async_v3(stream))


class _Numbered:
    """An engine before 8.5."""

    def __init__(self, engine: Any, context: Any) -> None:
        self._engine, self._context = engine, context
        self._addresses = [0] * int(engine.num_bindings)
        self._at = {str(engine.get_binding_name(at)): at for at in range(engine.num_bindings)}

    def tensors(self, trt: Any) -> List[Tuple[str, bool]]:
        return [(name, bool(self._engine.binding_is_input(at))) for name, at in self._at.items()]

    def kind(self, name: str) -> Any:
        return self._engine.get_binding_dtype(self._at[name])

    def shape(self, name: str) -> Tuple[int, ...]:
        return tuple(self._context.get_binding_shape(self._at[name]))

    def fix(self, name: str, shape: Sequence[int]) -> bool:
        return bool(self._context.set_binding_shape(self._at[name], tuple(shape)))

    def bind(self, tensor: Tensor) -> bool:
        self._addresses[self._at[tensor.name]] = tensor.device
        return True

    def run(self, stream: int) -> bool:
        return bool(self._context.execute_async_v2(self._addresses, stream))


class Session:
    """One engine, loaded, with its memory and a stream of its own. One caller at a time.

    Args:
        trt: The bindings' module.
        cuda: CUDA.
        plan: Verified; nothing is kept of it.
        shape: What the input is fed, where the engine leaves it open.
        lean: Library of the older release whose plan it is; empty for one of TensorRT's own.

    Raises:
        EngineFault: TensorRT does not take it, it is no detector's, or memory is short.
    """

    def __init__(self, trt: Any, cuda: Cuda, plan: Any, shape: Sequence[int], lean: str) -> None:
        self._cuda, self._logger = cuda, logger(trt)
        self._made: List[Tuple[str, int]] = []
        self._runtime = self._lean = self._engine = self._context = self._tensors = None  # type: Any
        try:
            self._open(trt, plan, shape, lean)
        except BaseException:
            self.close()
            raise

    @property
    def memory_bytes(self) -> int:
        """Memory of the GPU that it takes besides its weights."""
        scratch = getattr(self._engine, "device_memory_size_v2", None)
        scratch = self._engine.device_memory_size if scratch is None else scratch
        return int(scratch) + sum(each.size for each in (self.input, *self.outputs))

    def infer(self, source: int, size: int) -> Tensor:
        """Runs the float32 numbers at an address; returns the first output, on the host."""
        given, cuda, stream = self.input, self._cuda, self._stream
        if size != given.size:
            raise EngineFault("a batch of %d bytes is not what the engine is fed" % size)
        ctypes.memmove(given.host, source, size)
        cuda.copy(given.device, given.host, size, stream, up=True)
        try:
            self._does("run the engine", self._tensors.run, stream)
        except EngineFault:
            # TensorRT's own libcudart has a last error of its own; a lost context shows in a wait.
            cuda.do("cudaStreamSynchronize", ctypes.c_void_p(stream))
            raise
        found = self.outputs[0]
        cuda.copy(found.host, found.device, found.size, stream, up=False)
        cuda.wait(self._event, stream)
        return found

    def close(self) -> None:
        """Frees everything, the newest first."""
        self._tensors = self._context = self._engine = self._lean = self._runtime = None
        while self._made:
            self._cuda.free(*self._made.pop())

    def _open(self, trt: Any, plan: Any, shape: Sequence[int], lean: str) -> None:
        self._runtime = _guarded(self._does("start", trt.Runtime, self._logger))
        if lean:
            load = getattr(self._runtime, "load_runtime", lambda _: None)
            self._lean = _guarded(self._does("load the lean runtime " + lean, load, lean))
        runtime = self._lean or self._runtime
        self._engine = self._does("take the plan", runtime.deserialize_cuda_engine, plan)
        self._context = self._does("make a context", self._engine.create_execution_context)
        self._stream, self._event = (
            self._keep("stream", NON_BLOCKING),
            self._keep("event", SLEEPING),
        )
        named = hasattr(self._context, "execute_async_v3")
        self._tensors = (_Named if named else _Numbered)(self._engine, self._context)
        self._bind(trt, shape)

    def _bind(self, trt: Any, shape: Sequence[int]) -> None:
        told = self._tensors.tensors(trt)
        inputs = [name for name, is_input in told if is_input]
        outputs = [name for name, is_input in told if not is_input]
        if len(inputs) != 1 or not outputs:
            raise EngineFault("the engine has %d inputs and %d outputs, a detector has one"
                              % (len(inputs), len(outputs)))  # fmt: skip
        for name, _ in told:
            if self._tensors.kind(name) != trt.float32:
                raise EngineFault("%s is %s, Kedge feeds and reads float32"
                                  % (name, self._tensors.kind(name)))  # fmt: skip
        if -1 in self._tensors.shape(inputs[0]):
            self._does("take %s" % (tuple(shape),), self._tensors.fix, inputs[0], shape)
        self.input = self._tensor(inputs[0])
        self.outputs = [self._tensor(each) for each in outputs]

    def _tensor(self, name: str) -> Tensor:
        shape = self._tensors.shape(name)
        if min(shape, default=1) <= 0:  # not their product: two open dimensions make it positive
            raise EngineFault("%s has the shape %s" % (name, shape))
        size = _bytes(shape)
        made = Tensor(name, shape, size, self._keep("pinned", size), self._keep("device", size))
        self._does("take the memory of " + name, self._tensors.bind, made)
        return made

    def _keep(self, kind: str, how: int) -> int:
        self._made.append((kind, self._cuda.make(kind, how)))
        return self._made[-1][1]

    def _does(self, what: str, function: Callable[..., Any], *given: Any) -> Any:
        """Calls TensorRT; where it does not do it, that is told with what it said meanwhile."""
        caller, error = threading.get_ident(), None  # type: int, Any
        lines = _CALLS.setdefault(caller, [])
        try:
            found = function(*given)
        except _VENDOR as raised:
            found, error = None, raised
        finally:
            del _CALLS[caller]
        if found is None or found is False:
            raise _fault("TensorRT does not " + what, lines, error)
        return found


def _fault(what: str, lines: List[Tuple[bool, str]], error: Any) -> EngineFault:
    """Returns TensorRT's first error, which says most, else its last warning or the bindings'."""
    told = [line for wrong, line in lines if wrong]
    told += [line for wrong, line in reversed(lines) if not wrong]
    told.append(" ".join(str(error or "no reason was given").split()))
    short = isinstance(error, MemoryError) or _SHORT.search(" ".join(told))
    return (OutOfMemory if short else EngineFault)("%s: %s" % (what, told[0][:200]))


def _guarded(runtime: Any) -> Any:
    """Returns a runtime that lets no plan run code on the processor."""
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = False
    return runtime


_LOGGERS: Dict[Any, Any] = {}
#: Calls of TensorRT's under way: thread → (an error, else a warning; what was said).
_CALLS: Dict[int, List[Tuple[bool, str]]] = {}


def logger(trt: Any) -> Any:
    """Returns the bindings' one logger: TensorRT uses the first that it got to its end."""
    if trt in _LOGGERS:
        return _LOGGERS[trt]
    severity = trt.ILogger.Severity
    errors = (severity.ERROR, severity.INTERNAL_ERROR)

    class Quiet(trt.ILogger):  # type: ignore[misc]  # the module is known at run time alone
        def log(self, how: Any, message: str) -> None:
            """Called by TensorRT; what a thread of its own says may concern every call."""
            if how not in (*errors, severity.WARNING):
                return
            own = _CALLS.get(threading.get_ident())
            for lines in list(_CALLS.values()) if own is None else [own]:
                if len(lines) < _MOST_LINES:
                    lines.append((how in errors, " ".join(message.split())[:1000]))

    return _LOGGERS.setdefault(trt, Quiet())


def serve(talk: socket.socket, trt: Any, cuda: Callable[[], Cuda] = Cuda) -> None:
    """Loads what is ordered and answers until the other side is gone."""
    order, fds = _ordered(talk)
    memory = mmap.mmap(fds[0], order["input_bytes"] + order["output_bytes"])
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    try:
        plan = mmap.mmap(fds[1], 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        with memoryview(plan) as whole, whole[order["skip"] :] as view:
            session = Session(trt, cuda(), view, order["shape"], order.get("lean", ""))
        plan.close()
    except EngineFault as error:
        talk.send(_failure(0, error))
        return
    talk.send(_packed(READY, 0, struct.pack("<Q", session.memory_bytes)))
    for data in iter(lambda: talk.recv(_MESSAGE_BYTES), b""):
        number = HEADER.unpack_from(data)[3]
        try:
            talk.send(_packed(ANSWER, number, _answer(session, begin, data, order)))
        except EngineFault as error:
            talk.send(_failure(number, error))
    session.close()


def _answer(session: Session, begin: int, data: bytes, order: Dict[str, Any]) -> bytes:
    (count,) = struct.unpack_from("<I", data, HEADER.size)
    shape = struct.unpack_from("<%dQ" % count, data, HEADER.size + 4)
    found = session.infer(begin, _bytes(shape))
    if found.size > order["output_bytes"]:
        raise EngineFault("an output %s is larger than a host may give" % (found.shape,))
    ctypes.memmove(begin + order["input_bytes"], found.host, found.size)
    return struct.pack("<I%dQ" % len(found.shape), len(found.shape), *found.shape)


def _ordered(talk: socket.socket) -> Tuple[Dict[str, Any], List[int]]:
    """Returns the order, and the descriptors that came with it."""
    room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * struct.calcsize("i"))
    data, beside, _, _ = talk.recvmsg(_MESSAGE_BYTES, room)
    fds = [fd for _, _, each in beside for (fd,) in struct.iter_unpack("i", each)]
    return json.loads(data[HEADER.size :].decode()), fds


def _bytes(shape: Sequence[int]) -> int:
    return functools.reduce(operator.mul, shape, 4)


def _packed(kind: int, number: int, body: bytes) -> bytes:
    return HEADER.pack(MAGIC, VERSION, kind, number) + body


def _failure(number: int, error: EngineFault) -> bytes:
    code = {OutOfMemory: MEMORY, ContextLost: LOST}.get(type(error), ENGINE)
    return _packed(FAILED, number, struct.pack("<H", code) + str(error).encode()[:1000])


def main() -> None:
    """Serves one engine."""
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd) as talk:
        serve(talk, importlib.import_module("tensorrt"))


if __name__ == "__main__":
    main()
