"""``kill -9`` at random moments: back on a verified engine (more: ``benchmarks/chaos.py``)."""

from __future__ import annotations

from pathlib import Path

from benchmarks import chaos_kills
from benchmarks.chaos_board import Record


def test_kill_9_of_each_process_at_random_moments(tmp_path: Path) -> None:
    """Real processes, a real engine; each kind of them once."""
    record = Record("kill -9", len(chaos_kills.VICTIMS))
    chaos_kills.run(tmp_path / "home", record, seed=20)
    assert record.done == record.planned
    assert (record.found, record.again) == ({}, 0)
    assert record.updates > 1
