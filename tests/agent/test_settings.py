"""The configuration: bounded, and errors that name the setting."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from kedge_agent.settings import AgentSettings, read_settings, schema
from kedge_shared.errors import InputError

BASE: dict[str, Any] = {
    "server": "https://kedge.example", "root": "1.root.json", "state_dir": "state",
    "device": "cam-1", "device_class": "x86-onnxruntime",
    "source": {"kind": "video", "path": "camera.mp4"},
}  # fmt: skip


def settings_of(folder: Path, **changes: Any) -> AgentSettings:
    """Reads a configuration with changes."""
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}))
    return read_settings(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    found = settings_of(tmp_path)
    assert found.state_dir == tmp_path / "state"
    assert found.maintenance is None
    assert found.download_bytes_per_second is None
    assert settings_of(tmp_path, download_kib_per_second=8).download_bytes_per_second == 8192


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pol_seconds": 5}, "unknown settings: pol_seconds"),
        ({"source": {"kind": "video", "path": "x", "fsp": 5}}, "unknown settings: source.fsp"),
        ({"maintenance": {"begins": "22:00", "ends": "04:00", "zon": ""}}, "maintenance.zon"),
        ({"poll_seconds": 0}, "$.poll_seconds"),
        ({"source": {"kind": "radio", "path": "x"}}, "$.source.kind"),
        ({"source": {"kind": "video"}}, "set source.path"),
        ({"server": "http://kedge.example"}, "plain HTTP"),
        ({"maintenance": {"begins": "25:00", "ends": "04:00"}}, "$.maintenance.begins"),
        ({"maintenance": {"begins": "22:00", "ends": "04:00", "days": ["xyz"]}}, "days"),
        ({"maintenance": {"begins": "22:00", "ends": "04:00", "zone": "Mars/Base"}},
         "maintenance.zone 'Mars/Base'"),
        ({"download_kib_per_second": 0.1}, "$.download_kib_per_second"),
        ({"disk_budget_mb": "much"}, "$.disk_budget_mb"),
        ({"metrics": {"port": 70000}}, "$.metrics.port"),
    ],
)  # fmt: skip
def test_errors_name_the_setting(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as wrong:
        settings_of(tmp_path, **changes)
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_the_schema_knows_every_setting_its_bounds_and_what_it_is_for() -> None:
    found = schema()
    main = found["$defs"]["AgentSettings"]
    assert set(main["properties"]) == {each.name for each in fields(AgentSettings)}
    assert main["additionalProperties"] is False
    assert {"server", "root", "state_dir", "device", "device_class", "source"} == set(
        main["required"]
    )
    poll = main["properties"]["poll_seconds"]
    assert (poll["minimum"], poll["default"]) == (0.2, 60.0)
    for name, each in main["properties"].items():
        assert each.get("description"), name
    assert "pattern" in found["$defs"]["WindowSettings"]["properties"]["begins"]
    assert json.dumps(found)


def test_the_example_is_one(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "agent" / "agent.example.yaml"
    assert read_settings(example).device == "cam-1"
