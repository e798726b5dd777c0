"""Puts up the walls and becomes another program: ``python -m kedge_agent.hosting.walled COMMAND…``.

For engines' processes that run on another Python, which has no Kedge to do it itself. Namespaces,
limits and filters outlive the change of program; files may be executed where libraries lie.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kedge_agent import sandbox


def command(of: Sequence[str]) -> tuple[str, ...]:
    """Returns the command that runs another one behind the walls."""
    return (sys.executable, "-m", "kedge_agent.hosting.walled", *of)


def become(wanted: Sequence[str], readable: Sequence[Path] = ()) -> None:
    """Becomes a program behind the walls.

    Args:
        wanted: Its command; the folders where its Python was installed are readable to it.
        readable: What else is.
    """
    program = Path(wanted[0])
    folders = {each.parent.parent for each in (program, program.resolve())} - {Path("/")}
    sandbox.enter([*readable, *folders], executable=sorted(folders))
    os.execv(wanted[0], list(wanted))  # noqa: S606 - a list, without a shell


if __name__ == "__main__":
    become(sys.argv[1:])
