"""A board that speaks the protocol and says of an engine what the test wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from kedge_shared import signing, wire
from kedge_shared.phases import Phase
from kedge_shared.protocol import (
    ASSIGNMENT_LIMIT_BYTES,
    ASSIGNMENT_TYPE,
    ENROLMENT_TYPE,
    REPORT_TYPE,
    Assignment,
    Enrolment,
    Report,
    Verdict,
)
from tests.shared import samples
from tests.waiting import PATIENCE

HARM = Verdict(code="accuracy", reason="worse", cause="harm", stopped_in=Phase.PREFLIGHT)


class SimDevice:
    """One board.

    Attributes:
        runs: Deployment it confirmed last.
        refuses: Decides by target path whether the board throws a build out.
    """

    def __init__(self, url: str, name: str, device_class: str, root: Path, **facts: Any) -> None:
        self.name, self.device_class, self.root = name, device_class, root
        self.signer = signing.generate()
        self.http = httpx.Client(base_url=url, timeout=PATIENCE)
        self.tags: dict[str, str] = facts.pop("tags", {})
        self.facts = facts.pop("facts", samples.facts())
        self.serves: bool = facts.pop("serves", True)
        self.refuses: Callable[[str], bool] = lambda path: False
        self.runs = ""
        self.boot, self.seq = f"boot-{name}", 0
        self.etag = ""
        self.assignment: Assignment | None = None

    def enrol(self, token: str) -> httpx.Response:
        body = Enrolment(
            name=self.name, device_class=self.device_class, tags=self.tags, facts=self.facts,
            public_key=signing.key_to_dict(self.signer.public_key), serves=self.serves,
        )  # fmt: skip
        answer = self.http.post(
            "/api/v1/enrol", json=signing.seal(body, ENROLMENT_TYPE, self.signer),
            headers={"Authorization": f"Bearer {token}"},
        )  # fmt: skip
        if answer.is_success:
            self.http.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return answer

    def poll(self) -> httpx.Response:
        """Asks; remembers the assignment without judging it."""
        headers = {"If-None-Match": self.etag} if self.etag else {}
        answer = self.http.get("/api/v1/device/poll", headers=headers)
        if answer.status_code == 200:
            self.etag = answer.headers["etag"]
            envelope = answer.json()["assignment"]
            self.assignment = self.open(envelope) if envelope else None
        return answer

    def open(self, envelope: dict[str, Any]) -> Assignment:
        director = wire.decode((self.root.parent / "director.json").read_bytes(), dict, "director")
        key = signing.key_from_dict(director["key"])
        return signing.unseal(
            envelope, ASSIGNMENT_TYPE, Assignment, key, limit_bytes=ASSIGNMENT_LIMIT_BYTES
        )

    def report(
        self, phase: Phase, verdict: Verdict | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Returns the next report, sealed."""
        self.seq += 1
        fields: dict[str, Any] = {
            "device": self.name, "boot_id": self.boot, "seq": self.seq,
            "created": int(time.time()), "workload": "main", "phase": phase,
            "deployment": self.assignment.deployment if self.assignment else "",
            "engine": "e" * 64, "release": self.release, "verdict": verdict or Verdict(code="ok"),
        }  # fmt: skip
        return signing.seal(Report(**(fields | changes)), REPORT_TYPE, self.signer)

    @property
    def release(self) -> str:
        return self.runs.split("/")[2] if self.runs else ""

    def send(self, *envelopes: dict[str, Any]) -> httpx.Response:
        return self.http.post("/api/v1/device/reports", json=list(envelopes))

    def live(self) -> None:
        """Polls, and does with an assignment what a board would."""
        self.poll()
        if self.assignment is None or self.assignment.manifest is None:
            return
        path = self.assignment.manifest.path
        if self.refuses(path):
            self.send(self.report(Phase.REFUSED, HARM))
        elif path != self.runs:
            self.runs = path
            self.send(self.report(Phase.CONFIRMED))
