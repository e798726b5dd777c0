"""The local Prometheus endpoint: off, then of this machine alone, then right."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from demo.processes import free_port
from kedge_agent import metrics
from kedge_agent.local_protocol import RunnerState
from kedge_agent.metrics import MetricsSettings, Snapshot, cumulative
from kedge_shared.errors import InputError
from kedge_shared.histogram import of
from kedge_shared.protocol import BoardReadings
from tests.agent.test_settings import settings_of
from tests.sim.board import SimBoard
from tests.sim.world import World
from tests.waiting import PATIENCE

TIMES = (0.4, 1.0, 1.01, 5.0, 8.0, 8.1, 900.0, 5000.0)


def scrape(port: int) -> dict[str, float]:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE)
    return {
        f"{each.name}{sorted(each.labels.items()) or ''}": each.value
        for family in text_string_to_metric_families(answer.text)
        for each in family.samples
    }


def test_what_a_scrape_tells() -> None:
    port = free_port()
    found = Snapshot(
        device="cam-1", release="1.2", phase="confirmed",
        runner=RunnerState(pid=1, frames=100, dropped=2, errors=1),
        latency_ms=of(TIMES), detections={"circle": 7}, waiting=3, lost=4, downloaded=5,
        board=BoardReadings(cpu=0.5, temperatures_c={"cpu": 51.0}, throttled=("hot",)),
    )  # fmt: skip
    close = metrics.serve(MetricsSettings(port=port), lambda: found)
    try:
        told = scrape(port)
    finally:
        close()
    assert told["kedge_frames_total"] == 100
    assert told["kedge_detections_total[('class', 'circle')]"] == 7
    assert told["kedge_temperature_celsius[('sensor', 'cpu')]"] == 51
    assert (told["kedge_cpu_used_ratio"], told["kedge_throttled"]) == (0.5, 1)
    assert "kedge_gpu_used_ratio" not in told, "not measured is not zero"
    assert told["kedge_frame_seconds_count"] == len(TIMES)
    assert told["kedge_frame_seconds_sum"] == pytest.approx(sum(TIMES) / 1000)
    assert (told["kedge_reports_waiting"], told["kedge_reports_lost_total"]) == (3, 4)


def test_buckets_are_exact() -> None:
    for bound, count in cumulative(of(TIMES)):
        assert count == sum(each / 1000 <= float(bound) for each in TIMES), bound


def test_it_listens_on_loopback_only_unless_it_is_said(tmp_path: Path) -> None:
    for address in ("0.0.0.0", "::", "192.168.1.4"):
        with pytest.raises(InputError, match="open to other machines"):
            metrics.check(MetricsSettings(port=9464, address=address))
        metrics.check(MetricsSettings(port=9464, address=address, beyond_this_machine=True))
    with pytest.raises(InputError, match="no IP address"):
        settings_of(tmp_path, metrics={"port": 9464, "address": "localhost:80"})
    assert settings_of(tmp_path).metrics is None, "off by default"


def test_a_port_that_is_taken_keeps_no_board_from_updating(
    running: World, board: SimBoard, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        board.metrics = MetricsSettings(port=taken.getsockname()[1])
        board.install()
    assert "metrics cannot listen" in capsys.readouterr().err
    board.metrics = MetricsSettings(port=free_port())
    told: list[dict[str, float]] = []

    def scraped(_: object) -> bool:
        return len(told) > 0

    import threading

    def later() -> None:
        told.append(scrape(board.metrics.port))  # type: ignore[union-attr]

    timer = threading.Timer(1.0, later)
    timer.start()
    board.run(scraped)
    timer.join()
    assert told[0]["kedge_runner_up"] == 1
    assert told[0]["kedge_downloaded_bytes_total"] > 0
