"""A board that renews its access by signing nonces, and what may go wrong with that."""

from __future__ import annotations

from typing import Any

import httpx
from securesystemslib.signer import CryptoSigner

from kedge_shared import signing
from kedge_shared.access import ACCESS_TYPE, KEY_CHANGE_TYPE, AccessRequest, KeyChange
from kedge_shared.protocol import ENROLMENT_TYPE, Enrolment
from tests.sim.device import SimDevice


class RenewingDevice(SimDevice):
    """Like :class:`SimDevice`, with short-lived tokens."""

    run = "run-1"

    def envelope(self, **changes: Any) -> dict[str, Any]:
        fields = {
            "name": self.name, "device_class": self.device_class, "tags": self.tags,
            "facts": self.facts, "public_key": signing.key_to_dict(self.signer.public_key),
            "renews": True,
        }  # fmt: skip
        return signing.seal(Enrolment(**(fields | changes)), ENROLMENT_TYPE, self.signer)

    def ask_in(self, token: str = "", **changes: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.post(
            f"{self.http.base_url}/api/v1/enrol".replace("//api", "/api"),
            json=self.envelope(**changes), headers=headers,
        )  # fmt: skip

    def enrol(self, token: str) -> httpx.Response:
        answer = self.ask_in(token)
        if answer.is_success:
            assert answer.json() == {"device": self.name, "token": ""}
            assert self.renew().is_success
        return answer

    def nonce(self) -> str:
        return str(self.http.post("/api/v1/device/nonce").json()["nonce"])

    def signed(self, nonce: str, signer: CryptoSigner | None = None) -> dict[str, Any]:
        asked = AccessRequest(device=self.name, nonce=nonce, run=self.run)
        return signing.seal(asked, ACCESS_TYPE, signer or self.signer)

    def ask(self, envelope: dict[str, Any]) -> httpx.Response:
        return self.http.post("/api/v1/device/token", json=envelope)

    def renew(self) -> httpx.Response:
        answer = self.ask(self.signed(self.nonce()))
        if answer.is_success:
            self.http.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return answer

    def change_key(self, new: CryptoSigner, *signers: CryptoSigner) -> httpx.Response:
        asked = KeyChange(
            device=self.name, nonce=self.nonce(), public_key=signing.key_to_dict(new.public_key)
        )
        sealed = signing.seal_by(asked, KEY_CHANGE_TYPE, signers or (self.signer, new))
        return self.http.post("/api/v1/device/key", json=sealed)
