"""Power cuts: always back on a verified engine (more: ``benchmarks/chaos.py``)."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import chaos_cuts
from benchmarks.chaos_board import Record


@pytest.mark.skipif(bool(chaos_cuts.why_not()), reason=chaos_cuts.why_not() or "it can")
def test_power_cuts(tmp_path: Path) -> None:
    record = Record("power cuts", 8)
    chaos_cuts.run(tmp_path / "home", record, seed=4)
    assert record.done == record.planned
    assert (record.found, record.again) == ({}, 0)
