"""Errors a person meets: one line that names the thing, and the mend.

    KedgeError
    ├── InputError          what was given cannot be used            exit 2
    ├── BudgetError         measured, and over its budget            exit 3
    ├── UndecidedError      too little data to say                   exit 4
    ├── TrustError          a signature, hash, counter or expiry     exit 5
    ├── ServiceError        the other side is down or said no        exit 6
    └── StorageError        disk full, read-only, unwritable         exit 7

Programming errors are ordinary ``RuntimeError``/``ValueError`` and are never caught to be shown
as one of these.
"""

from __future__ import annotations


class KedgeError(Exception):
    """Base of everything that is shown to a person as one line.

    Args:
        what: Names the thing and what is wrong with it.
        mend: What to do about it; empty where nothing can be done.
    """

    exit_code = 1

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        text = f"{self.what}; {self.mend}" if self.mend else self.what
        return one_line(text)


def one_line(text: str) -> str:
    """Returns text from elsewhere as one line that cannot drive a terminal or forge a log.

    White space becomes a space; control characters (escape sequences among them), and those that
    turn the direction of writing, become ``\N{REPLACEMENT CHARACTER}``.
    """
    spaced = " ".join(text.split())
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in spaced)


class InputError(KedgeError):
    """What the caller gave cannot be used."""

    exit_code = 2


class BudgetError(KedgeError):
    """Something was measured and is over its budget."""

    exit_code = 3


class UndecidedError(KedgeError):
    """There is too little evidence to decide."""

    exit_code = 4


class TrustError(KedgeError):
    """Something is unsigned, wrongly signed, expired, going back or altered.

    Attributes:
        code: Stable word for reports and tests, for example ``"hash"`` or ``"expired"``.
    """

    exit_code = 5

    def __init__(self, code: str, what: str, mend: str = "") -> None:
        super().__init__(what, mend)
        self.code = code


class ServiceError(KedgeError):
    """The other side of a connection is down, slow or refuses.

    Attributes:
        status: HTTP status, or ``None`` when no answer came.
        retry_after: Seconds the other side wants to be left alone, or ``None``.
    """

    exit_code = 6

    def __init__(
        self,
        what: str,
        mend: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, mend)
        self.status = status
        self.retry_after = retry_after


class StorageError(KedgeError):
    """The disk is full, read-only or cannot be written."""

    exit_code = 7
