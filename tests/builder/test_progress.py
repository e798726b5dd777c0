"""What a build says while it works, where nobody watches a terminal."""

from __future__ import annotations

import pytest

from kedge_builder import progress
from kedge_builder.progress import Progress


def test_a_log_says_now_and_then_how_far_a_long_stage_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress().stage("fine-tuning", 40) as tick:
        for _ in range(40):
            now[0] += 10
            tick()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fine-tuning"
    assert lines[1:3] == ["fine-tuning: 3 of 40, 6 min left", "fine-tuning: 6 of 40, 6 min left"]
    assert lines[-1] == "fine-tuning: 39 of 40, 10 s left"
    assert len(lines) == 1 + 13


def test_a_stage_of_unknown_length_or_a_quiet_one_says_no_more_than_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    for quiet in (False, True):
        with Progress(quiet=quiet).stage("measuring") as tick:
            tick()
        assert capsys.readouterr().err == ("" if quiet else "measuring\n")
