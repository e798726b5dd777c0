"""Bytes in, frozen dataclasses out, and back; the only place that knows it is JSON.

msgspec decodes and validates in one pass (12 MB resident, against 19 MB for pydantic-settings
alone), which is why the board uses it. Unknown fields of JSON are ignored, so that an older agent
reads what a newer server writes.
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from kedge_shared.errors import InputError

T = TypeVar("T")


def _encode_other(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} does not go over the wire")


def _decode_other(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected {kind.__name__}")


#: YAML reads 1.0 as a number and 22:00 as minutes of the day.
_READ_AS_NUMBER = re.compile("Expected `str`, got `(int|float|bool)`")
_UNQUOTED = "write it in quotes"

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_making = threading.Lock()


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Returns a type's decoder, made once and by one thread.

    msgspec 0.22 crashes now and then (SIGSEGV, 1 of 60 processes with 12 threads) where several
    threads are the first to decode a dataclass.
    """
    found = _decoders.get(kind)
    if found is None:
        with _making:
            found = _decoders.get(kind) or msgspec.json.Decoder(kind, dec_hook=_decode_other)
            _decoders[kind] = found
    return found


def encode(value: object) -> bytes:
    """Encodes to JSON with sorted keys, so that equal values are equal bytes."""
    return msgspec.json.encode(value, order="deterministic", enc_hook=_encode_other)


def encode_pretty(value: object) -> bytes:
    """Encodes like :func:`encode`, indented for people, with a final newline."""
    return msgspec.json.format(encode(value), indent=2) + b"\n"


def decode(data: bytes | bytearray | memoryview, kind: type[T], what: str) -> T:
    """Decodes JSON into ``kind``, checking every field.

    Args:
        data: JSON text.
        kind: A frozen dataclass of this package.
        what: How to name the thing when it is wrong ("manifest of …").

    Raises:
        InputError: Not JSON, or a field is missing, of another type or out of bounds.
    """
    try:
        return _decoder(kind).decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"{what} cannot be read: {error}") from None


def decode_yaml(data: bytes, kind: type[T], what: str) -> T:
    """Decodes YAML into ``kind``; errors as :func:`decode`.

    People write it, so a field that does not exist is an error too: what is skipped is a slip that
    nobody sees. What machines send may hold fields of a later version.
    """
    try:
        _decoder(kind)  # so that what msgspec knows of the type is there
        read = msgspec.yaml.decode(data, type=kind, dec_hook=_decode_other)
        raw = msgspec.yaml.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        mend = _UNQUOTED if _READ_AS_NUMBER.match(str(error)) else ""
        raise InputError(f"{what} cannot be read: {error}", mend) from None
    unknown = next(_unknown(raw, msgspec.json.decode(encode(read)), read, ""), None)
    if unknown is None:
        return read
    where, key, near = unknown
    place = next(_places(key, msgspec.inspect.type_info(kind), ""), None)
    mend = f"did you mean {near}?" if near else f"it belongs at {place}" if place else ""
    raise InputError(f"{what}: there is no field {where}", mend)


def _unknown(given: Any, read: Any, meant: Any, path: str) -> Iterator[tuple[str, str, str | None]]:
    """Yields where something was written and not read, its name, and what has nearly that name."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            where = f"{path}.{key}" if path else str(key)
            if str(key) in read:
                below = getattr(meant, str(key), None)
                yield from _unknown(value, read[str(key)], below, where)
                continue
            names = [each.name for each in fields(meant)] if is_dataclass(meant) else []
            near = difflib.get_close_matches(str(key), names, 1)
            yield where, str(key), near[0] if near else None
    elif isinstance(given, list) and isinstance(read, list):
        items = meant if isinstance(meant, list | tuple) else [None] * len(read)
        for index, each in enumerate(zip(given, read, items, strict=False)):
            yield from _unknown(*each, f"{path}[{index}]")


def _places(name: str, kind: msgspec.inspect.Type, path: str) -> Iterator[str]:
    """Yields where a type has fields of that name, as ``stages[].gate.soak_seconds``."""
    if isinstance(kind, msgspec.inspect.DataclassType):
        for each in kind.fields:
            below = f"{path}.{each.name}" if path else each.name
            if each.name == name:
                yield below
            yield from _places(name, each.type, below)
    elif isinstance(kind, msgspec.inspect.VarTupleType):
        yield from _places(name, kind.item_type, f"{path}[]")
    elif isinstance(kind, msgspec.inspect.UnionType):
        for option in kind.types:
            yield from _places(name, option, path)


def read_limited(path: Path, what: str, limit_bytes: int) -> bytes:
    """Reads a small file whole.

    Raises:
        InputError: It is missing, unreadable or larger than ``limit_bytes``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}") from None
    if len(data) > limit_bytes:
        raise InputError(f"{what} {path} is larger than {limit_bytes} bytes")
    return data
