"""What a plan's first bytes tell, read before any vendor's code sees it. Pure.

TensorRT for RTX: ``vtrt`` at 0, the plan's length (8 bytes) at 16, version in four bytes at 24, SMs
as bits at 32. Measured with 1.7.1 by compiling one graph for each SM and for several. Of classic
TensorRT's header (``ftrt``) nothing is read but that it is one: no plan was at hand to measure.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kedge_shared.errors import InputError
from kedge_shared.plans import Plan
from kedge_shared.versions import same_release

_MAGIC = {b"vtrt": "tensorrt-rtx", b"ftrt": "tensorrt"}
_HEADER_BYTES = 64
#: Bit at offset 32 → SM.
_SM_BITS = {0: 75, 1: 80, 2: 86, 3: 89, 4: 120, 5: 121}
_ELF = b"\x7fELF"
#: Bytes of an ELF header up to and with its machine.
_ELF_BYTES = 20
#: Its class, byte order and version, as every loader wants them; else weights may have those four
#: bytes by chance. Tool Interface Standard, ELF 1.2, "ELF Identification".
_CLASSES, _LITTLE, _BIG, _ELF_VERSION = (1, 2), 1, 2, 1
#: Machine of an ELF image that holds code for an NVIDIA GPU, which every plan may carry.
_EM_CUDA = 190


@dataclass(frozen=True)
class PlanHeader:
    """A plan's own word.

    Attributes:
        runtime: What it is for.
        version: Of its compiler; empty where the header is not read.
        sm: SMs that it was compiled for; empty likewise.
    """

    runtime: str
    version: str = ""
    sm: tuple[int, ...] = ()


#: Ultralytics writes its metadata in front of a plan, which is never so long.
_METADATA_LIMIT_BYTES = 1024 * 1024


def begins_at(data: bytes | memoryview) -> int:
    """Returns where the plan begins: behind the JSON that Ultralytics writes in front of it.

    To be asked of verified bytes alone.
    """
    if bytes(data[:4]) in _MAGIC or len(data) < 4:
        return 0
    length = int.from_bytes(data[:4], "little")
    if not 2 <= length <= min(_METADATA_LIMIT_BYTES, len(data) - 8):
        return 0
    try:
        told = json.loads(bytes(data[4 : 4 + length]))
    except ValueError:
        return 0
    return 4 + length if isinstance(told, dict) else 0


def read_header(data: bytes | memoryview) -> PlanHeader:
    """Reads a plan's header, from where the plan begins.

    Raises:
        InputError: It is no plan, or cut off.
    """
    head = bytes(data[:_HEADER_BYTES])
    runtime = _MAGIC.get(head[:4])
    if runtime is None:
        raise InputError("this is no TensorRT plan")
    if len(head) < _HEADER_BYTES:
        raise InputError(f"the plan is cut off: {len(head)} bytes")
    if runtime == "tensorrt":
        return PlanHeader(runtime)
    (length,) = struct.unpack_from("<Q", head, 16)
    if length != len(data):
        raise InputError(f"the plan is cut off: {len(data)} bytes of {length}")
    bits = head[32]
    sm = tuple(each for bit, each in _SM_BITS.items() if bits >> bit & 1)
    return PlanHeader(runtime, ".".join(str(each) for each in head[24:28]), sm)


def check_plan(data: bytes | memoryview, plan: Plan) -> None:
    """Checks that a plan is what the manifest says, before it is deserialized.

    Raises:
        InputError: It is no plan, cut off, for another runtime, release or SM, or carries code for
            the processor: a plugin's library, or TensorRT's own runtime.
    """
    check_bytes(data)
    header = read_header(data[begins_at(data) :])
    if header.runtime != plan.runtime:
        raise InputError(f"the plan is for {header.runtime}, its manifest says {plan.runtime}")
    if header.version and not same_release(header.version, plan.version):
        raise InputError(
            f"the plan is of {plan.runtime} {header.version}, its manifest says {plan.version}"
        )
    if header.sm and not set(plan.sm) <= set(header.sm):
        raise InputError(f"the plan is for SM {_listed(header.sm)}, not {_listed(plan.sm)}")


def check_bytes(data: bytes | memoryview) -> None:
    """Checks what needs no manifest, before a plan is deserialized.

    Raises:
        InputError: It is no plan, cut off, or carries code for the processor: a plugin's library,
            or TensorRT's own runtime.
    """
    read_header(data[begins_at(data) :])
    if any(machine != _EM_CUDA for machine in _machines(bytes(data))):
        raise InputError(
            "the plan carries code for the processor: a plugin, or a runtime of its own"
        )


def _machines(data: bytes) -> Iterator[int]:
    """Yields the machine of each ELF image in ``data``; compressed ones stay unseen."""
    at = data.find(_ELF)
    while at >= 0:
        head = data[at : at + _ELF_BYTES]
        if len(head) == _ELF_BYTES and _is_elf(head):
            yield int.from_bytes(head[18:], "big" if head[5] == _BIG else "little")
        at = data.find(_ELF, at + len(_ELF))


def _is_elf(head: bytes) -> bool:
    return head[4] in _CLASSES and head[5] in (_LITTLE, _BIG) and head[6] == _ELF_VERSION


def _listed(sm: tuple[int, ...]) -> str:
    return ", ".join(map(str, sm)) or "any"
