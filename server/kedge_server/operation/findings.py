"""What a check found, and what that means for the exit status. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Level = Literal["broken", "attention", "note"]
#: Offline roles are signed by people, who need time.
_OFFLINE_WARNING = timedelta(days=30)
_ORDER: tuple[Level, ...] = ("broken", "attention", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a person should know.

    Attributes:
        level: ``broken``: boards or people are refused something; ``attention``: they will be, or
            it cannot be told; ``note``: neither.
        subject: database, migrations, audit, artifacts, metadata, keys or files.
        what: Names it.
        mend: What to do.
    """

    level: Level
    subject: str
    what: str
    mend: str = ""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The outcome of a check.

    Attributes:
        findings: Worst first.
        revision: Of the database.
        artifacts: How many were looked at.
        artifact_bytes: Of those.
        audit_rows: How many the chain has.
        hashed: Their bytes were read, not only their lengths.
    """

    findings: tuple[Finding, ...]
    revision: str
    artifacts: int = 0
    artifact_bytes: int = 0
    audit_rows: int = 0
    hashed: bool = True

    @property
    def exit_code(self) -> int:
        """0 where nothing is to be done, 1 broken, 3 attention."""
        levels = {each.level for each in self.findings}
        return 1 if "broken" in levels else 3 if "attention" in levels else 0


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Returns findings, worst first."""
    return tuple(sorted(findings, key=lambda each: (_ORDER.index(each.level), each.subject)))


def expiring(
    expiries: Mapping[str, datetime], lives: Mapping[str, timedelta], now: datetime
) -> list[Finding]:
    """Says which metadata has expired or soon will.

    Args:
        expiries: Role → when.
        lives: Role that the server itself signs → how long it holds; signed anew at half of it.
        now: Time.
    """
    found = []
    for role, expires in expiries.items():
        left, life = expires - now, lives.get(role)
        mend = "run the server: it signs anew" if life else "sign it anew: kedge keys"
        if left <= timedelta():
            what = f"{role} expired {expires:%Y-%m-%d %H:%M} UTC: boards accept nothing new"
            found.append(Finding(level="broken", subject="metadata", what=what, mend=mend))
        # A renewal at half of the life that is a quarter late.
        elif left < (life / 4 if life else _OFFLINE_WARNING):
            what = f"{role} expires {expires:%Y-%m-%d %H:%M} UTC"
            found.append(Finding(level="attention", subject="metadata", what=what, mend=mend))
    return found
