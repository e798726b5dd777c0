"""Who signs what, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from kedge_builder.publishing.changes import RoleKeys


def show_roles(roles: Sequence[RoleKeys]) -> None:
    """Prints a table; keys that are at hand are marked."""
    table = Table("role", "version", "must sign", "keys (* at hand)", box=None)
    for each in roles:
        keys = "  ".join(f"{keyid[:12]}{'*' if here else ''}" for keyid, here in each.keys.items())
        version = str(each.version or "")
        table.add_row(each.role, version, f"{each.threshold} of {len(each.keys)}", keys)
    Console().print(table)
