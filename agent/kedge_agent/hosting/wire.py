"""What the runner and an engine's process say to each other. Version 1.

One Unix socket of whole messages (``SOCK_SEQPACKET``) and one piece of shared memory, both
inherited. The tensors lie in the memory, the input first, the output behind it; messages say
when. Little-endian structs and one JSON object, so that another Python, or none, can be the host.

A message is a header and a body::

    4s  magic  b"KDGE"
    H   version
    H   kind
    Q   number of the frame; 0 for LOAD, READY

| kind | from | body |
|---|---|---|
| 1 LOAD | runner | JSON of :class:`Order` |
| 2 READY | host | empty: the engine is loaded |
| 3 INFER | runner | shape of the input |
| 4 ANSWER | host | shape of the output |
| 5 FAILED | host | H: 1 the engine's fault, 2 memory was short; then why, UTF-8 |

A shape is ``I`` dimensions and as many ``Q``; elements are float32. The runner speaks first and
has one question open; an ANSWER to an older number is thrown away. Whoever sees the other's end
closed ends.
"""

from __future__ import annotations

import math
import struct
from typing import Literal, TypeAlias

import msgspec

MAGIC, VERSION = b"KDGE", 1
LOAD, READY, INFER, ANSWER, FAILED = 1, 2, 3, 4, 5
#: A message is no longer.
LIMIT_BYTES = 64 * 1024
ENGINE, MEMORY = 1, 2
_HEADER = struct.Struct("<4sHHQ")
_MOST_DIMENSIONS = 8
_FLOAT_BYTES = 4

Shape: TypeAlias = tuple[int, ...]
EngineRole: TypeAlias = Literal["engine", "engine-weights"]


class HostedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed file that the host inherits.

    Attributes:
        role: As in the manifest.
        fd: Number of its descriptor.
        sha256: Hash of what it holds; checked while it was sealed.
        length: Bytes.
    """

    role: EngineRole
    fd: int
    sha256: str
    length: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the host is to load, and where the tensors lie.

    Attributes:
        runtime: As in manifests.
        threads: Threads that the engine may use.
        files: Of the engine.
        memory_fd: Number of the shared memory's descriptor.
        input_bytes: At its beginning; the output lies behind it.
        output_bytes: The most that an output may be.
        memory_mb: Memory that the host may use, MiB; 0 is no limit.
    """

    runtime: str
    threads: int
    files: tuple[HostedFile, ...]
    memory_fd: int
    input_bytes: int
    output_bytes: int
    memory_mb: float = 0.0


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
