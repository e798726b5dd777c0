"""Policies of the network, pure: when to ask again, how fast to read, when the window is open."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_agent.network import tls
from kedge_agent.network.backoff import (
    RETRY_AFTER_LIMIT_SECONDS,
    Backoff,
    meaning,
    next_poll,
    retry_after_seconds,
)
from kedge_agent.network.bandwidth import full_bucket
from kedge_agent.network.window import WindowSettings, window_open, zone_of
from kedge_shared.errors import InputError

BERLIN = ZoneInfo("Europe/Berlin")
draws = st.floats(0, 1)


@given(st.integers(0, 10**9), draws)
def test_waits_stay_within_their_cap(attempt: int, draw: float) -> None:
    backoff = Backoff(first_seconds=0.5, longest_seconds=60)
    assert 0 <= backoff.wait(attempt, draw) <= backoff.cap(attempt) <= 60


def test_waits_double_and_jitter_is_full() -> None:
    backoff = Backoff(first_seconds=0.5, longest_seconds=60)
    caps = [backoff.cap(each) for each in range(9)]
    assert caps == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert (backoff.wait(3, 0.0), backoff.wait(3, 0.5), backoff.wait(3, 1.0)) == (0, 2, 4)


@given(st.integers(0, 50), draws, st.floats(0, 3600))
def test_what_the_server_asks_for_is_never_undercut(
    attempt: int, draw: float, after: float
) -> None:
    wait = Backoff().wait(attempt, draw, after)
    assert after <= wait <= max(60.0, after * 1.1 + 1e-9)


@pytest.mark.parametrize(
    ("status", "means"),
    [
        (None, "busy"), (408, "busy"), (425, "busy"), (429, "busy"), (500, "busy"),
        (503, "busy"), (599, "busy"), (400, "refused"), (401, "refused"), (403, "refused"),
        (404, "refused"), (410, "refused"), (418, "refused"), (422, "refused"),
    ],
)  # fmt: skip
def test_which_answers_are_worth_a_second_try(status: int | None, means: str) -> None:
    assert meaning(status) == means


@given(st.integers(1, 10**6), draws, st.floats(0.2, 86400))
def test_a_refusal_is_never_asked_about_sooner_than_a_poll(
    failures: int, draw: float, interval: float
) -> None:
    wait = next_poll(interval, failures, "refused", draw)
    assert interval <= wait <= max(interval * 1.1, 4 * 3600)


def test_refusals_become_rare_and_a_server_that_is_away_is_asked_soon() -> None:
    assert [next_poll(60, each, "refused", 1.0) for each in (1, 2, 3, 20)] == [66, 120, 240, 14400]
    assert [next_poll(3600, each, "busy", 1.0) for each in (1, 2, 3, 20)] == [2, 4, 8, 3600]
    assert next_poll(60, 1, "busy", 0.0, 300) == 300


def test_a_fleet_does_not_flood_a_server_that_refuses_it() -> None:
    """An hour of 1,000 boards whose every poll is refused, against an hour of good ones."""
    import random

    rng, polls = random.Random(1), 0
    for _ in range(1000):
        at, failures = rng.uniform(0, 60), 0
        while at < 3600:
            polls, failures = polls + 1, failures + 1
            at += next_poll(60, failures, "refused", rng.random())
    assert polls < 1000 * 60 / 4


@pytest.mark.parametrize(
    ("text", "date", "seconds"),
    [
        ("120", "", 120),
        (" 0 ", "", 0),
        ("999999999999999999", "", RETRY_AFTER_LIMIT_SECONDS),
        ("-5", "", None),
        ("soon", "", None),
        ("", "", None),
        ("1.5", "", None),
        ("٣", "", None),
        # By the server's own clock, whatever ours says (it thinks it is 1970).
        ("Wed, 25 Nov 2026 10:02:00 GMT", "Wed, 25 Nov 2026 10:00:00 GMT", 120),
        ("Wed, 25 Nov 2026 10:00:00 GMT", "Wed, 25 Nov 2026 10:02:00 GMT", 0),
        ("Wed, 25 Nov 2026 10:00:00 GMT", "", RETRY_AFTER_LIMIT_SECONDS),
        ("Thu, 01 Jan 1970 00:00:40 GMT", "", 30),
        ("Wed, 99 Nov 2026 10:00:00 GMT", "", None),
    ],
)
def test_retry_after(text: str, date: str, seconds: float | None) -> None:
    assert retry_after_seconds(text, date, now=10.0) == seconds


@given(st.lists(st.tuples(st.integers(1, 65536), st.floats(0, 5)), min_size=1, max_size=60))
def test_no_more_comes_than_the_limit_allows(reads: list[tuple[int, float]]) -> None:
    now, total, bucket = 50.0, 0, full_bucket(10_000.0, 50.0)
    for count, idle in reads:
        bucket, wait = bucket.take(count, now)
        total += count
        now += wait + idle
        assert bucket.level <= bucket.burst
        assert total <= 10_000 + 10_000 * (now - 50) + 1e-3


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    bucket, wait = full_bucket(100.0, 50.0).take(100, 10.0)
    assert (bucket.level, wait) == (0, 0)


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def night(begins: str = "22:00", ends: str = "04:00", **more: object) -> WindowSettings:
    return WindowSettings(begins=begins, ends=ends, zone="Europe/Berlin", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "open_", "until"),
    [
        ("2026-11-25 21:59", False, "2026-11-25 22:00"),
        ("2026-11-25 22:00", True, "2026-11-26 04:00"),
        ("2026-11-26 00:30", True, "2026-11-26 04:00"),
        ("2026-11-26 03:59", True, "2026-11-26 04:00"),
        ("2026-11-26 04:00", False, "2026-11-26 22:00"),
    ],
)
def test_a_window_over_midnight(now: str, open_: bool, until: str) -> None:
    found = window_open(night(), at(now), 0, BERLIN)
    assert found.open is open_
    assert found.until is not None
    assert found.until.timestamp() == at(until)


@pytest.mark.parametrize(
    ("now", "open_"),
    [
        ("2026-11-29 00:30", False),  # Sunday; the window of Saturday is none
        ("2026-11-27 23:00", True),  # Friday night
        ("2026-11-28 03:00", True),  # still Friday's
        ("2026-11-28 23:00", False),
    ],
)
def test_a_window_belongs_to_the_day_on_which_it_begins(now: str, open_: bool) -> None:
    assert window_open(night(days=("fri",)), at(now), 0, BERLIN).open is open_


def opened(window: WindowSettings, day: str) -> list[tuple[str, str]]:
    """Returns the stretches of a local day in which a window is open, by the clock in UTC."""
    begin = datetime.fromisoformat(day).replace(tzinfo=BERLIN).astimezone(timezone.utc)
    steps = [begin + timedelta(minutes=each) for each in range(25 * 60)]
    states = [window_open(window, each.timestamp(), 0, BERLIN).open for each in steps]
    found, since = [], None
    for moment, is_open in zip(steps, states, strict=True):
        if is_open and since is None:
            since = moment
        if not is_open and since is not None:
            found.append((f"{since:%H:%M}", f"{moment:%H:%M}"))
            since = None
    return found


@pytest.mark.parametrize(
    ("day", "begins", "ends", "stretches"),
    [
        # 29 March 2026: 01:00 UTC is 02:00 and becomes 03:00.
        ("2026-03-29", "01:30", "03:30", [("00:30", "01:30")]),
        ("2026-03-29", "02:10", "02:50", [("01:10", "01:50")]),
        # 25 October 2026: 01:00 UTC is 03:00 and becomes 02:00 again.
        ("2026-10-25", "02:10", "02:50", [("00:10", "00:50")]),
        ("2026-10-25", "01:30", "03:30", [("23:30", "02:30")]),
    ],
)
def test_changes_of_summer_time(
    day: str, begins: str, ends: str, stretches: list[tuple[str, str]]
) -> None:
    assert opened(night(begins, ends), day) == stretches


@pytest.mark.parametrize("said", [0.0, 1_000.0, -5.0])
def test_a_clock_from_1970_opens_no_window_and_is_said(said: float) -> None:
    found = window_open(night("00:00", "00:00"), said, 1_700_000_000, BERLIN)
    assert not found.open
    assert "the clock says 1970-01-01" in found.reason


def test_a_window_of_a_whole_day_is_always_open() -> None:
    for hour in range(0, 200):
        assert window_open(night("03:00", "03:00"), 1_800_000_000 + hour * 3600, 0, BERLIN).open


def test_a_window_without_days_never_opens() -> None:
    assert window_open(night(days=()), 1_800_000_000, 0, BERLIN).until is None


def test_zones(tmp_path: Path) -> None:
    for name in ("Europe/Nowhere", "../etc/passwd", "Europe", "/etc/localtime"):
        with pytest.raises(InputError, match="maintenance.zone"):
            zone_of(WindowSettings(begins="01:00", ends="02:00", zone=name))
    plain = WindowSettings(begins="01:00", ends="02:00")
    assert zone_of(plain, tmp_path / "none") is timezone.utc
    system = Path("/usr/share/zoneinfo/Asia/Tokyo")
    if not system.is_file():
        pytest.skip("this machine has no tz database of its own")
    (tmp_path / "localtime").write_bytes(system.read_bytes())
    tokyo = zone_of(plain, tmp_path / "localtime")
    assert datetime.fromtimestamp(0, tokyo).hour == 9


def test_certificates_are_checked_by_the_systems_authorities_or_by_certifis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tls.context.__wrapped__()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    real = ssl.get_default_verify_paths()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    bare = real._replace(capath=str(tmp_path), cafile=None)
    monkeypatch.setattr(tls.ssl, "get_default_verify_paths", lambda: bare)
    assert len(tls.context.__wrapped__().get_ca_certs()) > 50, "a bare system has certifi's"
    (tmp_path / "0a1b2c3d.0").write_text("")
    assert tls.context.__wrapped__().get_ca_certs() == [], "the system's own are enough"
