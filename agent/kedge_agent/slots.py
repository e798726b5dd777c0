"""The file that tells the runner what to serve; written by the updater, replaced whole."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kedge_agent.local_protocol import SLOTS_FILE, Slots


def read_slots(state_dir: Path) -> Slots:
    """Reads ``slots.json``; a board without one has nothing to run."""
    try:
        return msgspec.json.decode((state_dir / SLOTS_FILE).read_bytes(), type=Slots)
    except FileNotFoundError:
        return Slots()
    except (OSError, msgspec.MsgspecError):
        # It is replaced by rename and synced: half a file means a disk that lies. The updater
        # writes it again from its journal at its own start.
        return Slots()
