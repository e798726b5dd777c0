"""What deploys Kedge: no service is root, writes or grows without bound; configurations hold."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())[
        "services"
    ]
    return found


#: ``dev`` is a person's workshop: what is installed in a notebook has to go somewhere.
KEPT = [name for name in services() if name not in {"dev", "bucket"}]


@pytest.mark.parametrize("name", KEPT)
def test_a_service_has_no_more_than_it_needs(name: str) -> None:
    found = services()[name]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in found["security_opt"]
    assert {"mem_limit", "cpus", "pids_limit"} <= set(found)
    own = found.get("build", {}).get("dockerfile")
    user = str(found.get("user", ""))
    if own:
        assert re.search(r"^USER kedge$", (ROOT / own).read_text(), re.MULTILINE)
    else:
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "an image of others runs as we say"
    assert "healthcheck" in found or "HEALTHCHECK" in (ROOT / own).read_text()


def test_only_the_proxy_is_reached_from_outside() -> None:
    open_ports = {
        name: each["ports"] for name, each in services().items()
        if any(not str(port).startswith("127.0.0.1:") for port in each.get("ports", ()))
    }  # fmt: skip
    assert list(open_ports) == ["proxy"]
    inside = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["networks"]["inside"]
    assert inside["internal"] is True
    for name in ("database", "store"):
        assert services()[name]["networks"] == ["inside"]


def test_a_workshop_needs_no_server_and_is_open_to_this_machine_alone() -> None:
    """Compose reads every ``env_file`` of a file before it starts anything of it."""
    (dev,) = yaml.safe_load((DEPLOY / "dev.yml").read_text())["services"].values()
    assert "env_file" not in dev
    assert all(port.startswith("127.0.0.1:") for port in dev["ports"])
    assert dev["cap_drop"] == ["ALL"]
    assert services()["dev"]["extends"] == {"file": "deploy/dev.yml", "service": "dev"}
    page = (ROOT / "docs" / "howto" / "development.md").read_text()
    assert "docker compose -f deploy/dev.yml up --build" in page


def test_no_secret_stands_in_what_is_committed() -> None:
    for path in (ROOT / "docker-compose.yml", *DEPLOY.glob("*")):
        if path.is_file():
            text = path.read_text()
            assert not re.search(
                r"(?i)(password|secret|token)\w*[=:]\s*['\"]?[0-9a-f]{16}", text
            ), path
    assert "/deploy/run/" in (ROOT / ".gitignore").read_text()
    assert "deploy" not in (ROOT / ".dockerignore").read_text()


def test_nginx_reads_its_configuration(tmp_path: Path) -> None:
    if not (shutil.which("nginx") and shutil.which("openssl")):
        pytest.skip("nginx and openssl are not installed")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", "/CN=localhost", "-keyout", tmp_path / "server.key",
         "-out", tmp_path / "server.pem"], check=True, capture_output=True,
    )  # fmt: skip
    text = (DEPLOY / "nginx.conf").read_text()
    (tmp_path / "nginx.conf").write_text(
        text.replace("/tmp/", f"{tmp_path}/").replace("/etc/kedge/tls", str(tmp_path))
    )
    done = subprocess.run(
        ["nginx", "-t", "-c", tmp_path / "nginx.conf"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_prometheus_reads_its_configuration_and_rules_name_metrics_that_there_are() -> None:
    sources = "".join(
        each.read_text() for each in (ROOT / "server" / "kedge_server" / "metrics").glob("*.py")
    )
    rules = (DEPLOY / "alerts.yml").read_text()
    named = set(re.findall(r"\bkedge_[a-z0-9_]+", rules))
    assert named
    assert [each for each in named if f'"{each}"' not in sources] == []
    if shutil.which("promtool"):
        for what, path in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
            more = ["--syntax-only"] if what == "config" else []
            done = subprocess.run(
                ["promtool", "check", what, *more, DEPLOY / path],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr + done.stdout


def test_what_is_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("run"))
    (folder / "run" / "keys" / "online").mkdir(parents=True)
    (folder / "run" / "keys" / "repository").mkdir()

    def made() -> dict[str, bytes]:
        # Without root it ends at chown, after all has been made.
        subprocess.run(["sh", folder / "init.sh", "kedge.test"], check=False, capture_output=True)
        return {
            each.name: each.read_bytes() for each in (folder / "run").iterdir() if each.is_file()
        }

    first = made()
    assert {"server.env", "database.env", "store.env", "operator.token", "ca.pem"} <= set(first)
    for name in ("server.env", "database.env", "store.env", "operator.token", "ca.key"):
        assert (folder / "run" / name).stat().st_mode & 0o077 == 0, name
    assert made() == first
    named = subprocess.run(
        ["openssl", "x509", "-in", folder / "run/tls/server.pem", "-noout", "-ext",
         "subjectAltName"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "DNS:kedge.test" in named.stdout
