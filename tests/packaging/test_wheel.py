"""The wheel as a board would install it: small, light, and every module of the agent imports."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_BYTES = 120 * 1024 * 1024
HEAVY = ("torch", "ultralytics", "fastapi", "sqlmodel", "sqlalchemy", "onnx", "cv2", "pydantic")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with nothing but the agent's core extra; returns its python."""
    home = tmp_path_factory.mktemp("board")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "-w", str(home), str(ROOT)],
        check=True,
    )  # fmt: skip
    (wheel,) = home.glob("kedge-*.whl")
    venv.create(home / "venv", with_pip=True)
    python = home / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", f"{wheel}[agent]"], check=True)
    return python


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, cwd="/", timeout=60, check=False
    )


def kedge(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(python.with_name("kedge"), *arguments)


def test_the_core_stays_under_its_size(board: Path) -> None:
    site = run(board, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    # pip and setuptools came with the empty environment; a board's image does not carry them.
    files = (each for each in Path(site).rglob("*") if each.is_file())
    size = sum(
        each.stat().st_size
        for each in files
        if each.relative_to(site).parts[0]
        not in {"pip", "setuptools", "pkg_resources", "_distutils_hack"}
    )
    assert size < LIMIT_BYTES, f"{size / 2**20:.0f} MiB"


def test_nothing_heavy_came_along(board: Path) -> None:
    code = f"import importlib.util as u; print([n for n in {HEAVY!r} if u.find_spec(n)])"
    assert run(board, "-c", code).stdout.strip() == "[]"


def test_every_agent_module_imports(board: Path) -> None:
    code = """
import importlib, pkgutil, kedge_agent
names = [m.name for m in pkgutil.walk_packages(kedge_agent.__path__, 'kedge_agent.')]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    result = run(board, "-c", code)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 20


def test_agent_help_starts(board: Path) -> None:
    result = kedge(board, "agent", "--help")
    assert result.returncode == 0, result.stderr
    assert "status" in result.stdout


BUILD = ["build", "w.pt", "--data", "d.yaml", "--device-class", "x86-openvino", "--out", "o"]
SERVER = ["server", "run", "--data", "d", "--trust", "t"]


@pytest.mark.parametrize(("command", "extra"), [(BUILD, "builder"), (SERVER, "server")])
def test_a_missing_extra_is_named(board: Path, command: list[str], extra: str) -> None:
    result = kedge(board, *command)
    assert result.returncode == 2, result.stdout + result.stderr
    assert f"kedge[{extra}]" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_lists_every_command_without_any_extra(board: Path) -> None:
    result = kedge(board, "--help")
    assert result.returncode == 0, result.stderr
    commands = ("agent", "bench-worker", "build", "device", "explain", "inspect", "keys", "prune",
                "publish", "release", "rollout", "server")  # fmt: skip
    for command in commands:
        assert command in result.stdout


def test_migrations_travel_with_the_wheel(board: Path) -> None:
    code = """
import kedge_server, pathlib
print((pathlib.Path(kedge_server.__path__[0]) / "migrations" / "env.py").is_file())
"""
    assert run(board, "-c", code).stdout.strip() == "True"
