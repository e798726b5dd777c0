"""The doctor: each fault of a board is one finding with its mend, a healthy board has none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from kedge_agent import doctor
from kedge_agent.children import Left
from kedge_agent.doctor import Finding, examine
from kedge_agent.journal import Journal
from kedge_agent.sandbox import WALLS
from kedge_agent.settings import AgentSettings
from kedge_agent.specs import SourceSpec
from kedge_agent.state import State
from kedge_shared.protocol import Enrolled
from tests.agent.test_sensors import PI, tree
from tests.agent.test_settings import settings_of


@pytest.fixture
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AgentSettings:
    from kedge_agent import identity

    folder = tmp_path / "state"
    Journal(folder).close()
    identity.keep(folder, Enrolled(device="cam-1", token="t"))
    (tmp_path / "1.root.json").write_text("{}")
    monkeypatch.setattr(doctor.facts, "runtimes", lambda: {"onnxruntime": "1.31"})
    monkeypatch.setattr(doctor, "free_bytes", lambda _: 10**10)
    walled(monkeypatch, *WALLS)
    answers(monkeypatch, 200)
    return replace(settings_of(tmp_path), source=SourceSpec(kind="video", path=tmp_path))


def walled(monkeypatch: pytest.MonkeyPatch, *stand: str) -> None:
    async def tried(*_: object) -> Left:
        return Left(0, "\n".join(stand).encode(), b"")

    monkeypatch.setattr(doctor, "run_module", tried)


def answers(monkeypatch: pytest.MonkeyPatch, status: int, date: str = "") -> None:
    headers = {"Date": date} if date else {}
    monkeypatch.setattr(
        doctor.httpx, "get", lambda *_, **__: httpx.Response(status, headers=headers)
    )


def found(settings: AgentSettings, root: Path) -> dict[str, Finding]:
    return {each.what: each for each in examine(settings, root) if each.state != "good"}


def test_a_healthy_board(healthy: AgentSettings, tmp_path: Path) -> None:
    odd = found(healthy, tmp_path)
    assert set(odd) == {"loop"}, "no agent runs in this test"
    assert odd["loop"].state == "odd"


def no_root(settings: AgentSettings, _: pytest.MonkeyPatch) -> None:
    settings.root.unlink()


def open_root(settings: AgentSettings, _: pytest.MonkeyPatch) -> None:
    settings.root.chmod(0o666)


def open_state(settings: AgentSettings, _: pytest.MonkeyPatch) -> None:
    settings.state_dir.chmod(0o755)


def not_enrolled(settings: AgentSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEDGE_ENROL_TOKEN", raising=False)
    (settings.state_dir / "identity.json").unlink()


def broken_journal(settings: AgentSettings, _: pytest.MonkeyPatch) -> None:
    (settings.state_dir / "journal.db").write_bytes(b"zeros" * 2000)


def full_disk(_: AgentSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_bytes", lambda _: 10_000)


def in_1970(_: AgentSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.time, "time", lambda: 60.0)


def behind_what_was_proven(settings: AgentSettings, _: pytest.MonkeyPatch) -> None:
    journal = Journal(settings.state_dir)
    journal.save(msgspec.structs.replace(State(), newest_time=int(time.time()) + 9000))
    journal.close()


def server_away(_: AgentSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(*_: Any, **__: Any) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(doctor.httpx, "get", get)


def server_ill(_: AgentSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, 502)


def server_elsewhen(_: AgentSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, 200, "Wed, 25 Nov 2020 10:00:00 GMT")


def no_runtime(_: AgentSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.facts, "runtimes", lambda: {"openvino": "2026.1"})


@pytest.mark.parametrize(
    ("spoil", "what", "state", "said"),
    [
        (no_root, "pinned root", "bad", "is not there"),
        (open_root, "pinned root", "bad", "everybody may write"),
        (open_state, "state", "bad", "open to other users"),
        (not_enrolled, "key", "odd", "waits for approval"),
        (broken_journal, "state", "bad", "cannot be"),
        (full_disk, "disk", "bad", "0 MiB free"),
        (in_1970, "clock", "bad", "1970-01-01"),
        (behind_what_was_proven, "clock", "bad", "past for certain"),
        (server_away, "server", "bad", "does not answer (ConnectError)"),
        (server_ill, "server", "bad", "answers 502"),
        (server_elsewhen, "clock", "odd", "ahead of the server's"),
        (no_runtime, "runtime", "bad", "onnxruntime does not import here; installed: openvino"),
    ],
)
def test_each_fault_is_found_and_alone(
    healthy: AgentSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[AgentSettings, pytest.MonkeyPatch], None], what: str, state: str, said: str,
) -> None:  # fmt: skip
    spoil(healthy, monkeypatch)
    odd = found(healthy, tmp_path)
    assert (odd[what].state, said in odd[what].said) == (state, True), odd
    assert odd[what].mend or what == "server" or spoil is broken_journal
    assert set(odd) <= {what, "loop", "clock"}


def test_heat(healthy: AgentSettings, tmp_path: Path) -> None:
    assert found(healthy, tree(tmp_path, PI))["heat"].said == (
        "cpu-thermal 82 °C; firmware: under-voltage; firmware: throttled"
    )


def test_a_window_that_never_opens(healthy: AgentSettings, tmp_path: Path) -> None:
    never = settings_of(tmp_path, maintenance={"begins": "01:00", "ends": "02:00", "days": []})
    assert found(never, tmp_path)["window"].state == "bad"


@pytest.mark.parametrize(
    ("missing", "state", "mend"),
    [("calls", "odd", "seccomp"), ("files", "odd", "Landlock"), ("privileges", "bad", "Linux"),
     ("user", "good", "")],
)  # fmt: skip
def test_walls_that_do_not_stand(
    healthy: AgentSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str,
    state: str, mend: str,
) -> None:  # fmt: skip
    walled(monkeypatch, *(each for each in WALLS if each != missing))
    (told,) = [each for each in examine(healthy, tmp_path) if each.what == "sandbox"]
    assert told.state == state
    assert f"not there: {missing}" in told.said
    assert mend in told.mend


def test_the_walls_are_tried_in_a_child(tmp_path: Path) -> None:
    (told,) = doctor._sandbox()
    assert "limits" in told.said
    assert "privileges" in told.said


def test_a_class_that_this_agent_cannot_serve(
    healthy: AgentSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(doctor.RUNTIMES, "tensorrt")  # type: ignore[arg-type]
    finding = found(replace(healthy, device_class="jetson-orin-nx"), tmp_path)["runtime"]
    assert finding.state == "bad"
    assert finding.said == "this agent has no runtime for tensorrt, which jetson-orin-nx runs"
    assert "pip install" not in finding.mend, "no extra brings one"


def test_a_jetson_without_tensorrts_bindings_is_told_where_they_are(
    healthy: AgentSettings, tmp_path: Path
) -> None:
    finding = found(replace(healthy, device_class="jetson-orin-nx"), tmp_path)["runtime"]
    assert finding.state == "bad"
    assert "python3-libnvinfer" in finding.mend
    assert "KEDGE_TENSORRT_PYTHON" in finding.mend
