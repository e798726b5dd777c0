"""What the runner and an engine's process say to each other. Version 2.

One Unix socket of whole messages (``SOCK_SEQPACKET``), inherited, and one piece of shared memory.
The tensors lie in the memory, the input first, the output behind it; messages say when. LOAD brings
the descriptors along (``SCM_RIGHTS``): the memory's, then one for each file of the order.
Little-endian structs and one JSON object, so that another Python, or none, can be the host
(kedge_agent/gpu/engine_host.py is one).

A message is a header and a body::

    4s  magic  b"KDGE"
    H   version
    H   kind
    Q   number of the frame; 0 for LOAD, READY

| kind | from | body |
|---|---|---|
| 1 LOAD | runner | JSON of :class:`Order` |
| 2 READY | host | the engine is loaded. Q: memory of the GPU that it takes, bytes; or empty |
| 3 INFER | runner | shape of the input |
| 4 ANSWER | host | shape of the output |
| 5 FAILED | host | H: 1 the engine's fault, 2 memory was short, 3 the host is of no use any more;
then why, UTF-8 |

A shape is ``I`` dimensions and as many ``Q``; elements are float32. The runner speaks first and
has one question open; an ANSWER to an older number is thrown away. Whoever sees the other's end
closed ends.
"""

from __future__ import annotations

import math
import struct
from typing import Literal, TypeAlias

import msgspec

from kedge_shared.manifest import InputSpec, OutputSpec

MAGIC, VERSION = b"KDGE", 2
LOAD, READY, INFER, ANSWER, FAILED = 1, 2, 3, 4, 5
#: A message is no longer.
LIMIT_BYTES = 64 * 1024
ENGINE, MEMORY, LOST = 1, 2, 3
#: That come with LOAD.
MOST_DESCRIPTORS = 8
_HEADER = struct.Struct("<4sHHQ")
_MOST_DIMENSIONS = 8
_FLOAT_BYTES = 4

Shape: TypeAlias = tuple[int, ...]
EngineRole: TypeAlias = Literal["engine", "engine-weights"]


class HostedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed file whose descriptor comes with the order.

    Attributes:
        role: As in the manifest.
        sha256: Hash of what it holds; checked while it was sealed.
        length: Bytes.
    """

    role: EngineRole
    sha256: str
    length: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the host is to load, and where the tensors lie.

    Attributes:
        runtime: As in manifests.
        threads: Threads that the engine may use.
        files: Of the engine.
        input_bytes: At the beginning of the shared memory; the output lies behind it.
        output_bytes: The most that an output may be.
        shape: Of the input, where the engine leaves it open.
        input: What the engine is fed.
        output: How its output is read, for a runtime that decodes some of it; without the names.
        skip: Bytes at the beginning of the engine's file that are not the engine.
        memory_mb: Memory that the host may use, MiB; 0 is no limit.
        lean: Library that loads a plan of an older release; empty: the engine is the runtime's own.
    """

    runtime: str
    threads: int
    files: tuple[HostedFile, ...]
    input_bytes: int
    output_bytes: int
    shape: Shape
    input: InputSpec
    output: OutputSpec
    skip: int = 0
    memory_mb: float = 0.0
    lean: str = ""


class WireError(Exception):
    """The other side said what this version does not know."""


class Message(msgspec.Struct, frozen=True):
    """One message."""

    kind: int
    number: int
    body: bytes = b""


def pack(message: Message) -> bytes:
    """Returns a message as it is sent."""
    return _HEADER.pack(MAGIC, VERSION, message.kind, message.number) + message.body


def unpack(data: bytes) -> Message:
    """Reads a message.

    Raises:
        WireError: It is none, or of another version.
    """
    if len(data) < _HEADER.size:
        raise WireError(f"a message of {len(data)} bytes is none")
    magic, version, kind, number = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise WireError(f"speaks {magic!r} {version}, not {MAGIC!r} {VERSION}")
    return Message(kind, number, data[_HEADER.size :])


def pack_shape(shape: Shape) -> bytes:
    """Returns a shape as it is sent."""
    return struct.pack(f"<I{len(shape)}Q", len(shape), *shape)


def unpack_shape(body: bytes, limit_bytes: int) -> Shape:
    """Reads a shape.

    Args:
        body: Of a message.
        limit_bytes: Its tensor is no larger.

    Raises:
        WireError: It is none, or larger than the memory that it is said to lie in.
    """
    try:
        (count,) = struct.unpack_from("<I", body)
        if count > _MOST_DIMENSIONS:
            raise WireError(f"a tensor of {count} dimensions")
        shape: Shape = struct.unpack_from(f"<{count}Q", body, 4)
    except struct.error:
        raise WireError("half a shape") from None
    if math.prod(shape) * _FLOAT_BYTES > limit_bytes:
        raise WireError(f"a tensor {shape} is larger than its memory")
    return shape


def pack_failure(code: int, why: str) -> bytes:
    """Returns a failure as it is sent."""
    return struct.pack("<H", code) + why.encode()[:1000]


def unpack_failure(body: bytes) -> tuple[int, str]:
    """Reads a failure: whose fault it is, and why."""
    code = struct.unpack_from("<H", body)[0] if len(body) >= 2 else ENGINE
    return code, body[2:].decode(errors="replace")


def unpack_memory(body: bytes) -> int:
    """Reads the memory of a READY, bytes; 0 where it is not told."""
    return int(struct.unpack_from("<Q", body)[0]) if len(body) >= 8 else 0
