"""The API keeps to its own description, whatever is sent: no 5xx, answers as documented."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kedge_shared import signing
from kedge_shared.phases import Phase as DeploymentPhase
from tests.sim.device import SimDevice
from tests.sim.world import TOKEN, World, world

schemathesis = pytest.importorskip("schemathesis", reason="install kedge[dev]")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")

CHECKS = (
    schemathesis.checks.not_a_server_error,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.status_code_conformance,
)
#: Of each route; the seed is fixed, so a failure is the same tomorrow.
EXAMPLES = 6


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, SimDevice]]:
    """A server with something of everything, so that answers are not empty lists alone."""
    with world(tmp_path_factory.mktemp("api")) as found:
        found.publish("1.0", 10)
        device = found.enrol("cam-1")
        found.roll_out("1.0")
        device.poll()
        device.send(device.report(DeploymentPhase.CONFIRMED, attestation=signing.seal(
            {"x": 1}, "application/x", device.signer)))  # fmt: skip
        found.tick()
        yield found, device


def test_every_route_keeps_to_what_the_api_says_of_it(fleet: tuple[World, SimDevice]) -> None:
    found, device = fleet
    described = schemathesis.openapi.from_url(f"{found.url}/openapi.json")
    artifact = found.operator.release("shapes", "1.0").builds[0].engine
    known = {
        "device": "cam-1", "model": "shapes", "release": "1.0", "name": "timestamp.json",
        "rollout": found.operator.rollouts()[0].id, "sha256": artifact,
    }  # fmt: skip
    wrong, count = [], 0
    for each in described.get_all_operations():
        operation = each.ok()
        count += 1
        try:
            exercise(operation, token_for(operation.path, device), known)
        # Whatever it is, the other routes are looked at too.
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{operation.label}: {error}")
    assert count > 30
    assert not wrong, "\n\n".join(wrong)


def token_for(path: str, device: SimDevice) -> str:
    of_board = path.startswith("/api/v1/device/")
    return device.http.headers["Authorization"] if of_board else f"Bearer {TOKEN}"


def exercise(operation: Any, token: str, known: dict[str, str]) -> None:
    @given(case=operation.as_strategy(), real=st.booleans())
    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    def sent(case: Any, real: bool) -> None:
        # Random names lead nowhere: half of the time there is something of that name.
        for name in case.path_parameters if real else ():
            case.path_parameters[name] = known.get(name, case.path_parameters[name])
        case.call_and_validate(headers={"Authorization": token}, checks=CHECKS)

    sent()


def test_the_description_is_whole(fleet: tuple[World, SimDevice]) -> None:
    """Each route says what it does; the page for people is none of them."""
    paths = fleet[0].operator.http.get("/openapi.json").json()["paths"]
    assert len(paths) > 25
    assert not any(each.startswith("/docs") for each in paths)
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert operation.get("summary"), f"{method} {path}"
            assert Path(path).is_absolute()
