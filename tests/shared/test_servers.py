"""Which server a command asks, and with which token: option, environment, configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from kedge_shared.client import Client
from kedge_shared.errors import InputError
from kedge_shared.servers import (
    DEFAULT_SERVER,
    NamedServer,
    ServerConfig,
    config_path,
    named,
    read_config,
    resolve,
    write_config,
)

NORTH = "https://north.example"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment that names a configuration with two servers."""
    for name in ("north", "lab"):
        (tmp_path / name).write_text(f"token-of-{name}\n")
    config = named(ServerConfig(), "north", NamedServer(
        address=NORTH, token_file=str(tmp_path / "north"), ca_file="/ca.pem"))  # fmt: skip
    lab = NamedServer(address="http://127.0.0.1:9", token_file=str(tmp_path / "lab"))
    write_config(tmp_path / "config.yaml", named(config, "lab", lab))
    return {"KEDGE_CONFIG": str(tmp_path / "config.yaml")}


def test_the_first_named_server_is_the_default(home: dict[str, str]) -> None:
    found = resolve(environment=home)
    assert (found.address, found.name, found.token) == (NORTH, "north", "token-of-north")
    assert found.ca_file == Path("/ca.pem")


@pytest.mark.parametrize("asked", ["lab", "http://127.0.0.1:9", "http://127.0.0.1:9/"])
def test_a_server_is_asked_for_by_name_or_address(home: dict[str, str], asked: str) -> None:
    found = resolve(asked, environment=home)
    assert (found.name, found.token, found.ca_file) == ("lab", "token-of-lab", None)
    assert resolve(environment={**home, "KEDGE_SERVER": asked}).name == "lab"


def test_a_token_of_the_file_goes_to_no_other_server(home: dict[str, str]) -> None:
    with pytest.raises(InputError, match="no operator token"):
        resolve("https://elsewhere.example", environment=home)


def test_option_before_environment_before_file(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "told").write_text("told")
    (tmp_path / "environment").write_text("environment")
    both = {**home, "KEDGE_TOKEN": "plain", "KEDGE_TOKEN_FILE": str(tmp_path / "environment")}
    assert resolve(token_file=tmp_path / "told", environment=both).token == "told"
    assert resolve(environment=both).token == "environment"
    assert resolve(environment={**home, "KEDGE_TOKEN": "plain"}).token == "plain"
    assert resolve("lab", environment={**home, "KEDGE_SERVER": "north"}).name == "lab"


def test_without_a_file_it_is_this_machine(tmp_path: Path) -> None:
    nothing = {"KEDGE_CONFIG": str(tmp_path / "none"), "KEDGE_TOKEN": "t"}
    assert resolve(environment=nothing).address == DEFAULT_SERVER
    with pytest.raises(InputError, match="there is no server 'north'.*a name it has: none"):
        resolve("north", environment=nothing)


def test_the_file_is_where_people_look_for_it() -> None:
    assert config_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/kedge/config.yaml")
    assert config_path({}) == Path("~/.config/kedge/config.yaml").expanduser()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default: nowhere\n", "default nowhere is none of its servers"),
        ("servers: {north: {adress: https://x}}", "adress|address"),
        ("servers: [", "cannot be read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_config(tmp_path / "config.yaml")


def test_the_default_that_is_taken_out_leaves_none(home: dict[str, str]) -> None:
    config = read_config(Path(home["KEDGE_CONFIG"]))
    left = named(config, "north", None)
    assert (left.default, list(left.servers)) == ("", ["lab"])
    assert named(config, "lab", None).default == "north"


def test_authorities_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ca_file .*none.pem cannot be read"):
        Client(NORTH, "t", ca_file=tmp_path / "none.pem")
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(InputError, match="holds no certificates"):
        Client(NORTH, "t", ca_file=tmp_path / "empty.pem")
