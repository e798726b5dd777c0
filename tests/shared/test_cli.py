"""The one place where errors become a line and an exit status."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Literal

import pytest
import typer

from kedge_shared import cli


def broken(name: str) -> Callable[[], Callable[..., None]]:
    def run(*, standalone_mode: bool) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return lambda: run


def test_what_is_not_installed_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "build_app", broken("torch"))
    monkeypatch.setattr("sys.argv", ["kedge", "build"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "pip install 'kedge[builder]'" in capsys.readouterr().err


def test_a_part_of_ours_is_never_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "build_app", broken("kedge_builder.nowhere"))
    with pytest.raises(ModuleNotFoundError):
        cli.main()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["device-class", "lst"], "No such command 'lst'"),
        (["device-class", "show"], "Missing argument"),
        (["device-class", "list", "--jsn"], "--json"),
        (["device-class", "--nothing"], "No such option: --nothing"),
    ],
)
def test_a_command_line_that_is_wrong_gets_one_line(
    given: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["kedge", *given])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kedge: ")
    assert said in line
    assert "device-class" in line.partition("(see '")[2]
    assert line.endswith("--help')")


def test_choices_are_told_on_the_same_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Click lists them one below the other."""
    app = typer.Typer()

    @app.command()
    def run(pick: Literal["smallest", "fastest"]) -> None:
        raise AssertionError(pick)

    monkeypatch.setattr(cli, "build_app", lambda: app)
    monkeypatch.setattr("sys.argv", ["kedge"])
    with pytest.raises(SystemExit):
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert "smallest, fastest" in line


def start(code: str, **streams: int) -> subprocess.Popen[str]:
    """Returns a process whose ``kedge`` has one command that runs ``code``."""
    program = (
        "import sys, time, typer\n"
        "from kedge_shared import cli\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        f"def run() -> None:\n    {code}\n"
        "cli.build_app = lambda: app\n"
        "sys.argv = ['kedge']\n"
        "cli.main()\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], text=True, **streams)


def test_ctrl_c_ends_with_130_and_a_line() -> None:
    code = "print('up', flush=True); time.sleep(60)"
    with start(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == "kedge: stopped\n"
        assert process.returncode == 130


@pytest.mark.parametrize("flushed", [True, False])
def test_a_reader_that_went_away_is_141_and_no_trace(flushed: bool) -> None:
    code = f"sys.stdin.readline(); print('x' * 9, flush={flushed})"
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with start(code, **streams) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(timeout=30) == 141
        assert process.stderr.read() == ""
