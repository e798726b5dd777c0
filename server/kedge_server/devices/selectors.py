"""Selectors of devices: RSQL over facts and tags. Pure.

RSQL is what hawkBit's users write (github.com/jirutka/rsql-parser), a superset of FIQL
(draft-nottingham-atompub-fiql)::

    class==jetson-orin-*;tag.site=in=(north,south)
    memory_mb>=4096 and (arch==aarch64 or sm=ge=87) and runtime.tensorrt<11

``;`` or ``and`` binds closer than ``,`` or ``or``. ``*`` in a value of ``==`` and ``!=`` stands for
anything. Numbers and versions are compared as such. What a device does not have equals nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from kedge_shared.errors import InputError

#: Facts of one device: field → value, or values where it has several.
Facts: TypeAlias = Mapping[str, "str | float | tuple[str, ...]"]

_COMPARISONS = {"==": "==", "!=": "!=", "=lt=": "<", "<": "<", "=le=": "<=", "<=": "<=",
                "=gt=": ">", ">": ">", "=ge=": ">=", ">=": ">=", "=in=": "=in=",
                "=out=": "=out="}  # fmt: skip
FIELDS = ("name", "class", "arch", "memory_mb", "sm", "agent", "cpu_flags", "release")
#: Prefixes of fields whose rest is free.
FAMILIES = ("tag.", "runtime.")
_FIELD = re.compile(r"[A-Za-z_][\w.-]*")
_OPERATOR = re.compile(r"==|!=|=[a-z]+=|<=|>=|<|>")
_BARE = re.compile(r"""[^\s"'();,=<>!]+""")
_WORD = re.compile(r"\s+(and|or)(?=[\s(])")
_DEEPEST = 50


class SelectorError(InputError):
    """A selector cannot be read.

    Attributes:
        at: Zero-based position of the fault.
    """

    def __init__(self, text: str, at: int, wanted: str) -> None:
        found = f"{text[at : at + 12]!r}" if at < len(text) else "its end"
        super().__init__(f"selector {text!r}: at position {at + 1}, {found}: {wanted}")
        self.at = at


@dataclass(frozen=True)
class Constraint:
    """One comparison.

    Attributes:
        field: Of :data:`FIELDS`, or of a family.
        operator: Canonical.
        values: One, or several for ``=in=`` and ``=out=``.
    """

    field: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Both:
    """All (``and``) or any (``or``) of its parts, two at least."""

    word: Literal["and", "or"]
    parts: tuple[Selector, ...]


Selector: TypeAlias = Constraint | Both


def parse(text: str) -> Selector:
    """Reads a selector.

    Raises:
        SelectorError: It cannot be read, or names a field that no device has.
    """
    reader = _Reader(text)
    found = reader.disjunction(0)
    reader.skip()
    if reader.at < len(text):
        raise SelectorError(text, reader.at, "expected ';', ',', 'and', 'or' or the end")
    return found


class _Reader:
    """Recursive descent; each method reads one rule of the grammar at ``at``."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def disjunction(self, depth: int) -> Selector:
        parts = [self.conjunction(depth)]
        while self.joins(",", "or"):
            parts.append(self.conjunction(depth))
        return parts[0] if len(parts) == 1 else Both("or", tuple(parts))

    def conjunction(self, depth: int) -> Selector:
        parts = [self.term(depth)]
        while self.joins(";", "and"):
            parts.append(self.term(depth))
        return parts[0] if len(parts) == 1 else Both("and", tuple(parts))

    def term(self, depth: int) -> Selector:
        self.skip()
        if not self.takes("("):
            return self.constraint()
        if depth >= _DEEPEST:
            raise SelectorError(self.text, self.at, f"nested deeper than {_DEEPEST}")
        found = self.disjunction(depth + 1)
        self.skip()
        if not self.takes(")"):
            raise SelectorError(self.text, self.at, "expected ')'")
        return found

    def constraint(self) -> Constraint:
        start = self.at
        match = _FIELD.match(self.text, start)
        if match is None:
            raise SelectorError(self.text, start, "expected the name of a field or '('")
        field = match[0]
        if field not in FIELDS and not any(
            field.startswith(each) and len(field) > len(each) for each in FAMILIES
        ):
            known = ", ".join((*FIELDS, "tag.KEY", "runtime.NAME"))
            raise SelectorError(self.text, start, f"no such field; there are {known}")
        self.at = match.end()
        self.skip()
        match = _OPERATOR.match(self.text, self.at)
        operator = _COMPARISONS.get(match[0]) if match else None
        if match is None or operator is None:
            known = ", ".join(_COMPARISONS)
            raise SelectorError(self.text, self.at, f"expected an operator: {known}")
        self.at = match.end()
        self.skip()
        several = operator in {"=in=", "=out="}
        return Constraint(field, operator, self.values() if several else (self.value(),))

    def values(self) -> tuple[str, ...]:
        if not self.takes("("):
            raise SelectorError(self.text, self.at, "expected '(' and a list of values")
        found = [self.value()]
        while self.takes(","):
            found.append(self.value())
        if not self.takes(")"):
            raise SelectorError(self.text, self.at, "expected ',' or ')'")
        return tuple(found)

    def value(self) -> str:
        self.skip()
        quote = self.text[self.at : self.at + 1]
        if quote and quote in "\"'":
            return self.quoted(quote)
        match = _BARE.match(self.text, self.at)
        if match is None:
            raise SelectorError(self.text, self.at, "expected a value, in quotes if need be")
        self.at = match.end()
        self.skip_blanks_before(",)")
        return match[0]

    def quoted(self, quote: str) -> str:
        start, found = self.at, ""
        at = start + 1
        while at < len(self.text) and self.text[at] != quote:
            at += self.text[at] == "\\" and at + 1 < len(self.text)
            found += self.text[at]
            at += 1
        if at >= len(self.text):
            raise SelectorError(self.text, start, "this quote is not closed")
        self.at = at + 1
        self.skip_blanks_before(",)")
        return found

    def joins(self, sign: str, word: str) -> bool:
        match = _WORD.match(self.text, self.at)
        if match is not None and match[1] == word:
            self.at = match.end()
            return True
        blank = self.at
        self.skip()
        if self.takes(sign):
            return True
        self.at = blank
        return False

    def takes(self, sign: str) -> bool:
        if self.text[self.at : self.at + 1] != sign:
            return False
        self.at += 1
        return True

    def skip(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def skip_blanks_before(self, signs: str) -> None:
        rest = self.text[self.at :].lstrip()
        if rest and rest[0] in signs:
            self.at = len(self.text) - len(rest)


def write(selector: Selector, *, inside: bool = False) -> str:
    """Returns a selector's text; reading it again gives the same."""
    if isinstance(selector, Constraint):
        said = ",".join(_quoted(each) for each in selector.values)
        several = selector.operator in {"=in=", "=out="}
        return f"{selector.field}{selector.operator}{f'({said})' if several else said}"
    joined = (";" if selector.word == "and" else ",").join(
        write(each, inside=True) for each in selector.parts
    )
    return f"({joined})" if inside else joined


def _quoted(value: str) -> str:
    if _BARE.fullmatch(value) and "\\" not in value:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def fields(selector: Selector) -> set[str]:
    """Returns the fields that a selector asks for."""
    if isinstance(selector, Constraint):
        return {selector.field}
    return {name for each in selector.parts for name in fields(each)}


def matches(selector: Selector, facts: Facts) -> bool:
    """Says whether a device is selected."""
    if isinstance(selector, Both):
        asked = (matches(each, facts) for each in selector.parts)
        return all(asked) if selector.word == "and" else any(asked)
    held = facts.get(selector.field)
    has = () if held is None else held if isinstance(held, tuple) else (held,)
    if selector.operator in {"!=", "=out="}:
        return not any(_equal(have, each) for have in has for each in selector.values)
    if selector.operator in {"==", "=in="}:
        return any(_equal(have, each) for have in has for each in selector.values)
    return any(_ordered(have, selector.operator, selector.values[0]) for have in has)


def _equal(have: str | float, wanted: str) -> bool:
    if isinstance(have, float | int):
        return _number(wanted) == have
    return fnmatchcase(have, re.sub(r"([\[?])", r"[\1]", wanted)) if "*" in wanted else (
        have == wanted
    )  # fmt: skip


def _ordered(have: str | float, operator: str, wanted: str) -> bool:
    """Compares as numbers where the fact is one, else as versions; what is neither never holds."""
    left: float | tuple[int, ...] | None
    right: float | tuple[int, ...] | None
    if isinstance(have, float | int):
        left, right = float(have), _number(wanted)
    else:
        left, right = _version(have), _version(wanted)
    if left is None or right is None:
        return False
    less, same = left < right, left == right  # type: ignore[operator]
    return {"<": less, "<=": less or same, ">": not less and not same, ">=": not less}[operator]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _version(text: str) -> tuple[int, ...] | None:
    match = re.match(r"\d+(?:\.\d+)*", text)
    if match is None:
        return None
    numbers = [int(each) for each in match[0].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
