"""What an RKNN file tells of itself, read before Rockchip's code sees it. Pure.

Measured with rknn-toolkit2 2.5.0: ``RKNN`` at 0, the format's version (8 bytes) at 8, the model's
length (8) at 16, the model from 64 on; behind it the length of a JSON text (8) and that text, which
ends the file and names the toolkit (``version``) and the chips (``target_platform``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import msgspec

from kedge_shared.errors import InputError
from kedge_shared.versions import same_release

_MAGIC = b"RKNN"
_HEADER_BYTES = 64
#: The text of a detector with six outputs has 3 KiB.
_TEXT_LIMIT_BYTES = 4 * 2**20


class _Text(msgspec.Struct):
    version: str
    target_platform: list[str]


@dataclass(frozen=True)
class RknnHeader:
    """An RKNN file's own word.

    Attributes:
        version: Of the toolkit that made it.
        soc: Chips that it was made for.
    """

    version: str
    soc: tuple[str, ...]


def read_header(data: bytes | memoryview) -> RknnHeader:
    """Reads what an RKNN file says of itself.

    Raises:
        InputError: It is none, or cut off.
    """
    if bytes(data[:4]) != _MAGIC:
        raise InputError("this is no RKNN model", "build it with `kedge build`")
    text = _text(data)
    try:
        found = msgspec.json.decode(text, type=_Text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InputError("the RKNN model does not say which toolkit and chip it is of") from None
    return RknnHeader(found.version.split("(")[0], tuple(found.target_platform))


def check_rknn(data: bytes | memoryview, *, version: str, soc: str) -> None:
    """Checks that a board can load an RKNN file, before it is loaded.

    Args:
        data: The file.
        version: Of the board's librknnrt.
        soc: The board's.

    Raises:
        InputError: It is none, cut off, of another release of the toolkit, or for another SoC.
    """
    found = read_header(data)
    if soc not in found.soc:
        made = " or ".join(found.soc) or "no SoC"
        raise InputError(f"the RKNN model is for {made}, this board is {soc or 'another SoC'}")
    if not same_release(found.version, version):
        raise InputError(
            f"the RKNN model is of toolkit {found.version}, the board's librknnrt is {version}",
            f"install librknnrt {found.version}, or build with rknn-toolkit2 {version}",
        )


def _text(data: bytes | memoryview) -> bytes:
    if len(data) < _HEADER_BYTES:
        raise InputError(f"the RKNN model is cut off: {len(data)} bytes")
    (model,) = struct.unpack_from("<Q", data, 16)
    at = _HEADER_BYTES + model
    wanted = at + 8
    if wanted <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        if length > _TEXT_LIMIT_BYTES:
            raise InputError(f"the RKNN model's description has {length} bytes: it is damaged")
        wanted += length
    if len(data) < wanted:
        raise InputError(f"the RKNN model is cut off: {len(data)} bytes of {wanted}")
    return bytes(data[at + 8 : wanted])
