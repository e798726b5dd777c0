"""libcudart on the host's memory, for every Python from 3.6 on: asynchronous, and it can fail.

What a stream is given is not done before somebody waits for it, or frees memory, which waits for
all streams as in CUDA: work that outlives its memory would write into the heap of the tests.
What is not freed is known. TensorRT, which has a libcudart of its own, sets no last error here.
"""

import ctypes
import functools
import threading


class Function:
    """Callable like a function of a library, with its ``restype``."""

    def __init__(self, call):
        self.call, self.restype = call, ctypes.c_int

    def __call__(self, *given):
        return self.call(*given)


class FakeCudart:
    """The functions of libcudart that Kedge asks for.

    Attributes:
        live: Handle → (kind, bytes) of what was made and not freed.
        fails: Name of a function → status that it returns from now on.
        limit: Bytes of GPU memory there are.
        todo: What streams have not done yet: (memory that it touches, work).
        pending: Status that every wait returns from now on: an error that lost the context.
        starts: Status that TensorRT gets from CUDA when it starts.
        meanwhile: Called before TensorRT says why it fails.
    """

    def __init__(self, limit=1 << 30):
        self.live, self.fails, self.limit, self.todo, self.pending = {}, {}, limit, [], 0
        self.starts, self.meanwhile = 0, None
        self.calls, self._kept, self._next, self._last = [], {}, 1, 0
        # One engine is freed in a thread while another one runs.
        self._lock = threading.Lock()

    def __getattr__(self, name):
        if not name.startswith("cuda"):
            raise AttributeError(name)
        function = Function(lambda *given: self._call(name, *given))
        self.__dict__[name] = function
        return function

    def used(self):
        return sum(size for kind, size in self.live.values() if kind == "device")

    def _call(self, name, *given):
        self.calls.append(name)
        if name == "cudaGetErrorString":
            return {
                2: b"out of memory",
                100: b"no CUDA-capable device is detected",
                700: b"an illegal memory access was encountered",
            }.get(given[0], b"unknown")
        if name == "cudaGetLastError":
            last, self._last = self._last, 0
            return last
        self._last = self.fails.get(name, 0) or getattr(self, "_" + name)(*given)
        return self._last

    def enqueue(self, touched, work):
        with self._lock:
            self.todo.append((touched, work))

    def _do(self):
        with self._lock:
            todo, self.todo = self.todo, []
            for touched, work in todo if not self.pending else ():
                assert all(each in self.live for each in touched), "memory was freed before its use"
                work()

    def _cudaGetDeviceCount(self, out):
        out._obj.value = 1
        return 0

    def _cudaMemGetInfo(self, free, total):
        free._obj.value, total._obj.value = self.limit - self.used(), self.limit
        return 0

    def _cudaStreamCreateWithFlags(self, out, flags):
        assert flags.value == 1
        return self._handle(out, "stream")

    def _cudaEventCreateWithFlags(self, out, flags):
        assert flags.value == 3
        return self._handle(out, "event")

    def _cudaMalloc(self, out, size):
        if self.used() + size.value > self.limit:
            return 2
        return self._memory(out, "device", size.value)

    def _cudaMallocHost(self, out, size):
        return self._memory(out, "pinned", size.value)

    def _cudaMemcpyAsync(self, to, source, size, kind, stream):
        kinds = ("pinned", "device") if kind.value == 1 else ("device", "pinned")
        for place, wanted in ((source, kinds[0]), (to, kinds[1])):
            assert self.live[place.value][0] == wanted, "copied from or to the wrong side"
            assert self.live[place.value][1] >= size.value
        assert self.live[stream.value][0] == "stream"
        work = functools.partial(ctypes.memmove, to.value, source.value, size.value)
        self.enqueue((to.value, source.value), work)
        return 0

    def _cudaEventRecord(self, event, stream):
        assert (self.live[event.value][0], self.live[stream.value][0]) == ("event", "stream")
        return 0

    def _cudaEventSynchronize(self, event):
        self._do()
        return self.pending

    def _cudaStreamSynchronize(self, stream):
        assert self.live[stream.value][0] == "stream"
        self._do()
        return self.pending

    def _free(self, handle, kind):
        if kind in ("device", "pinned"):
            self._do()
        assert self.live.pop(handle.value)[0] == kind
        self._kept.pop(handle.value, None)
        return 0

    def _cudaStreamDestroy(self, handle):
        return self._free(handle, "stream")

    def _cudaEventDestroy(self, handle):
        return self._free(handle, "event")

    def _cudaFree(self, handle):
        return self._free(handle, "device")

    def _cudaFreeHost(self, handle):
        return self._free(handle, "pinned")

    def _handle(self, out, kind):
        self._next += 1
        out._obj.value = self._next
        self.live[self._next] = (kind, 0)
        return 0

    def _memory(self, out, kind, size):
        kept = ctypes.create_string_buffer(size)
        address = ctypes.addressof(kept)
        self._kept[address] = kept
        self.live[address] = (kind, size)
        out._obj.value = address
        return 0
