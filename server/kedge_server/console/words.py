"""What pages say: times, sizes and shares for people. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from markupsafe import Markup, escape

_SIZES = ("B", "kB", "MB", "GB", "TB")
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"))


def moment(at: float | None, never: str = "never") -> Markup:
    """Returns a time as an element that the browser writes in the viewer's zone."""
    if at is None:
        return Markup('<span class="quiet">{}</span>').format(never)
    utc = datetime.fromtimestamp(at, timezone.utc)
    return Markup('<time datetime="{}" data-at="{:.3f}">{} UTC</time>').format(
        utc.isoformat(timespec="seconds"), at, utc.strftime("%Y-%m-%d %H:%M")
    )


def span(seconds: float | None) -> str:
    """Returns a length of time in its two largest units: ``2 h 5 min``."""
    if seconds is None:
        return "–"
    left, said = round(abs(seconds)), list[str]()
    for length, unit in _SPANS:
        if left >= length and len(said) < 2:
            said.append(f"{left // length} {unit}")
            left %= length
    if not said or (len(said) == 1 and said[0].endswith("min") and left):
        said.append(f"{left} s")
    return " ".join(said)


def number(value: float | None, digits: int = 0) -> str:
    """Returns a number with thin spaces between thousands."""
    return (
        "–" if value is None else f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    )


def share(part: float, whole: float) -> str:
    """Returns a share of a whole; what is neither none nor all is never shown as one of them."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if part and percent < 0.1:
        return "< 0.1 %"
    if part != whole and percent > 99.9:
        return "> 99.9 %"
    return f"{percent:.3g} %"


def size(length: float) -> str:
    """Returns a number of bytes."""
    at = 0
    while length >= 1000 and at < len(_SIZES) - 1:
        length, at = length / 1000, at + 1
    return f"{length:.3g} {_SIZES[at]}"


def boards(count: int) -> str:
    """Returns how many boards, in words that fit the number."""
    return "1 board" if count == 1 else f"{number(count)} boards"


def short(digest: str, digits: int = 12) -> Markup:
    """Returns the beginning of a hash; the whole of it is told on demand."""
    if not digest:
        return Markup('<span class="quiet">none</span>')
    return Markup('<code title="{}">{}</code>').format(digest, digest[:digits])


def odds(evidence: float, bound: float) -> str:
    """Returns log-evidence as odds beside those that decide: ``7 of 20 to 1``."""
    return f"{math.exp(min(max(evidence, 0.0), 50)):.3g} of {math.exp(min(bound, 50)):.3g} to 1"


#: Word → its look and sign; what a colour says is said by the sign and the word too.
_LOOKS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("pass", "passed", "completed", "confirmed", "healthy", "ok", "yes",
                     "delivered"), ("good", "✓")),
    **dict.fromkeys(("fail", "failed", "halted", "rolled_back", "refused", "revoked", "alarm",
                     "disabled", "expired", "bad", "given_up"), ("bad", "✕")),
    **dict.fromkeys(("undecided", "asking", "proposed", "paused", "widened", "silent",
                     "overridden", "unsigned", "suspected", "taken back", "soon", "dropped"),
                    ("wary", "!")),
    **dict.fromkeys(("running", "pending", "downloading", "verifying", "preflight", "shadow",
                     "armed", "swapping", "probation", "rolling_back"), ("busy", "▸")),
}  # fmt: skip


def badge(word: Any, title: str = "") -> Markup:
    """Returns a state as a word with a sign and a colour."""
    text = str(getattr(word, "value", word))
    look, sign = _LOOKS.get(text, ("idle", "·"))
    said = escape(text.replace("_", " "))
    hint = Markup(' title="{}"').format(title) if title else Markup("")
    return Markup('<span class="badge {}"{}><span aria-hidden="true">{}</span> {}</span>').format(
        look, hint, sign, said
    )


FILTERS: dict[str, Callable[..., Any]] = {
    "moment": moment, "span": span, "number": number, "size": size, "boards": boards,
    "short": short, "badge": badge, "share": share,
}  # fmt: skip
