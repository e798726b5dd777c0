"""A build measured on another machine: real server, real worker, the float shapes model."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from demo.processes import KEDGE, Processes, free_port, run, wait_for_server
from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.remote import Bench, measure_remotely
from kedge_builder.models.export import to_onnx
from kedge_builder.models.weights import load
from kedge_builder.progress import Progress
from kedge_shared import api
from kedge_shared.client import Client
from kedge_shared.device_classes import find_class
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.servers import read_token
from kedge_shared.signing import load_private_key
from tests.conftest import FIXTURE, SIZE
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "float.onnx"
    path.write_bytes(to_onnx(load(FIXTURE).model, SIZE))
    return path


def configuration(home: Path, url: str) -> Path:
    path = home / "bench.yaml"
    body = {
        "server": url, "state_dir": "state", "device": "bench-1",
        "device_class": "x86-onnxruntime", "trusted_keys": ["bench.key.pub"],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(body))
    return path


def test_a_board_of_the_class_measures(tmp_path: Path, float_model: Path) -> None:
    (tmp_path / "logs").mkdir()
    url = f"http://127.0.0.1:{free_port()}"
    run("keys", "init", "--out", str(tmp_path / "keys"))
    run("keys", "bench", "--out", str(tmp_path / "bench.key"))
    assert stat.S_IMODE((tmp_path / "bench.key").stat().st_mode) == 0o600
    with Processes(tmp_path / "logs") as processes:
        processes.start(
            "server", "server", "run", "--data", str(tmp_path / "server"),
            "--trust", str(tmp_path / "keys"), "--port", url.rsplit(":", 1)[1],
            env={"KEDGE_SERVER_BENCH_POLL_SECONDS": "0.2"},
        )  # fmt: skip
        wait_for_server(url, processes)
        with Client(url, read_token(tmp_path / "server" / "operator.token")) as client:
            token = client.enrolment_tokens(api.TokenRequest())[0].token
            worker = subprocess.Popen(
                [str(KEDGE), "bench-worker", "--config", str(configuration(tmp_path, url)),
                 "--once", "--json"],
                env={**os.environ, "KEDGE_ENROL_TOKEN": token},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                found = measure_remotely(
                    Bench(client, load_private_key(tmp_path / "bench.key"), wait_seconds=60),
                    find_class("x86-onnxruntime"),
                    [EngineFile("engine", float_model)], [],
                    InputSpec(height=SIZE, width=SIZE),
                    OutputSpec(head="yolo-v8", classes=("circle", "square", "triangle", "star")),
                    [], Progress(quiet=True), seconds=1.0,
                )  # fmt: skip
                said, log = worker.communicate(timeout=PATIENCE)
            finally:
                worker.kill()
                worker.wait()
    assert worker.returncode == 0, log
    assert found.device == "bench-1"
    assert found.reference is None
    assert found.built.rounds >= 20
    assert found.built.p95 >= found.built.p50 > found.built.engine_p50 > 0
    assert found.memory_mb is not None
    answer = json.loads(said)
    assert answer["engines"][0]["p50_ms"] == found.built.p50
    assert (answer["machine"], answer["failure"]) == (found.machine, None)
