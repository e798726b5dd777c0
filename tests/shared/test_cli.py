"""The one place where errors become a line and an exit status."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kedge_shared import cli


def broken(name: str) -> Callable[[], Callable[[], None]]:
    def run() -> None:
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
