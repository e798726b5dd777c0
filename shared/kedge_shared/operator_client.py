"""The whole operator API as one class: for the command line, and for programs of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import httpx

from kedge_shared import wire
from kedge_shared.accounts import (
    HEADER_CSRF,
    ApiTokenInfo,
    ApiTokenMade,
    ApiTokenRequest,
    Login,
    PasswordChange,
    UserChange,
    UserInfo,
    UserRequest,
    Whoami,
)
from kedge_shared.admission import AnnouncedKey, AnnouncedKeys, PendingDevice
from kedge_shared.api import BuildInfo, DeviceInfo
from kedge_shared.attachments import LIMITS_BYTES, REPORT
from kedge_shared.attestation import AttestationInfo, fetch_attestations
from kedge_shared.audit import AuditEntry
from kedge_shared.bench import BenchJobInfo
from kedge_shared.build_report import BuildReport, read_build_report
from kedge_shared.errors import InputError, ServiceError
from kedge_shared.event_client import EventClient
from kedge_shared.fleet import FleetInfo, TagsChange, TagsChanged
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, Manifest, read_manifest
from kedge_shared.protocol import Enrolled
from kedge_shared.telemetry import TelemetryInfo

_PAGE = 1000


class OperatorClient(EventClient):
    """Talks to one server with an operator's token, or with a session after :meth:`log_in`."""

    def whoami(self) -> Whoami:
        """Returns who asks, and what may be done."""
        return self._get("/api/v1/session", Whoami)

    def log_in(self, login: Login) -> Whoami:
        """Opens a session and goes on with it instead of a token.

        Raises:
            InputError: Name or password is wrong.
        """
        self.http.headers.pop("Authorization", None)
        try:
            me = self._post("/api/v1/session", login, Whoami)
        except ServiceError as error:
            if error.status == httpx.codes.UNAUTHORIZED:
                raise InputError("name or password is wrong") from None
            raise
        self.http.headers[HEADER_CSRF] = me.csrf
        return me

    def log_out(self) -> None:
        """Ends the session."""
        self._send("DELETE", "/api/v1/session")

    def fleet(self) -> FleetInfo:
        """Returns how the fleet is: boards by class, phase and release, rollouts, expiries."""
        return self._get("/api/v1/fleet", FleetInfo)

    def telemetry(
        self,
        level: Literal["hour", "day"] = "hour",
        *,
        device_class: str = "",
        release: str = "",
        since: float | None = None,
        until: float | None = None,
    ) -> list[TelemetryInfo]:
        """Returns what boards measured, by device class and release, oldest first.

        Args:
            level: Sums by the hour or by the day.
            device_class: Only of this class.
            release: Only of this release.
            since: Unix seconds; default: 48 hours or days ago.
            until: Unix seconds; default: now.
        """
        asked = {"level": level, "device_class": device_class, "release": release,
                 "since": since, "until": until}  # fmt: skip
        params = {key: value for key, value in asked.items() if value not in {"", None}}
        return self._get("/api/v1/telemetry", list[TelemetryInfo], params)

    def tag_devices(self, change: TagsChange) -> TagsChanged:
        """Changes boards' tags: of all that are named, or of none."""
        return self._post("/api/v1/device-tags", change, TagsChanged)

    def attestations(self, device: str, most: int = 20) -> list[AttestationInfo]:
        """Returns what a board signed that it runs, newest first; nothing is checked here.

        :func:`kedge_shared.attestation.open_running` checks one.
        """
        return fetch_attestations(self, device, most)

    def bench_jobs(self, most: int = 50) -> list[BenchJobInfo]:
        """Returns the newest bench jobs."""
        return self._get("/api/v1/bench/jobs", list[BenchJobInfo], {"most": most})

    def manifest(self, build: BuildInfo) -> Manifest:
        """Returns a build's manifest.

        Its bytes are checked against the hash that the server lists, which says nothing of who
        signed it: boards check that, and `kedge explain`.

        Raises:
            ServiceError: The server sends other bytes than it lists.
        """
        data = self.read(f"/api/v1/artifacts/{build.manifest_sha256}", MANIFEST_LIMIT_BYTES)
        if sha256_hex(data) != build.manifest_sha256:
            raise ServiceError(f"the server sends other bytes than it lists: {build.manifest_path}")
        return read_manifest(data)

    def build_report(self, build: BuildInfo) -> BuildReport | None:
        """Returns the published part of a build's report; ``None`` if none was published.

        Checked as :meth:`manifest` is.

        Raises:
            ServiceError: The server sends other bytes than it lists.
        """
        if not build.report:
            return None
        data = self.read(f"/api/v1/artifacts/{build.report}", LIMITS_BYTES[REPORT])
        if sha256_hex(data) != build.report:
            raise ServiceError(f"the server sends another report of {build.manifest_path}")
        return read_build_report(data, build.manifest_sha256)

    def users(self) -> list[UserInfo]:
        """Returns every user."""
        return self._get("/api/v1/users", list[UserInfo])

    def add_user(self, user: UserRequest) -> UserInfo:
        """Makes a user."""
        return self._post("/api/v1/users", user, UserInfo)

    def change_user(self, name: str, change: UserChange) -> UserInfo:
        """Changes what a user may do."""
        return self._post(f"/api/v1/users/{name}/change", change, UserInfo)

    def disable_user(self, name: str) -> UserInfo:
        """Lets a user in no more."""
        return self._post(f"/api/v1/users/{name}/disable", None, UserInfo)

    def enable_user(self, name: str) -> UserInfo:
        """Lets a disabled user in again."""
        return self._post(f"/api/v1/users/{name}/enable", None, UserInfo)

    def set_password(self, name: str, change: PasswordChange) -> UserInfo:
        """Sets a password; the user's sessions end."""
        return self._post(f"/api/v1/users/{name}/password", change, UserInfo)

    def api_tokens(self) -> list[ApiTokenInfo]:
        """Returns one's own API tokens, or everybody's to an administrator."""
        return self._get("/api/v1/tokens", list[ApiTokenInfo])

    def make_api_token(self, asked: ApiTokenRequest) -> ApiTokenMade:
        """Makes an API token; its secret comes this once."""
        return self._post("/api/v1/tokens", asked, ApiTokenMade)

    def revoke_api_token(self, ident: str) -> ApiTokenInfo:
        """Revokes an API token."""
        return self._post(f"/api/v1/tokens/{ident}/revoke", None, ApiTokenInfo)

    def pending_devices(self) -> list[PendingDevice]:
        """Returns boards that wait for approval."""
        return self._get("/api/v1/pending-devices", list[PendingDevice])

    def approve_device(self, fingerprint: str) -> Enrolled:
        """Takes a board in that waits."""
        return self._post(f"/api/v1/pending-devices/{fingerprint}/approve", None, Enrolled)

    def reject_device(self, fingerprint: str) -> PendingDevice:
        """Refuses a board that waits."""
        return self._post(f"/api/v1/pending-devices/{fingerprint}/reject", None, PendingDevice)

    def announced_keys(self) -> list[AnnouncedKey]:
        """Returns keys whose boards need no approval."""
        return self._get("/api/v1/announced-keys", list[AnnouncedKey])

    def announce_keys(self, keys: AnnouncedKeys) -> list[AnnouncedKey]:
        """Announces keys."""
        return self._post("/api/v1/announced-keys", keys, list[AnnouncedKey])

    def withdraw_key(self, fingerprint: str) -> AnnouncedKey:
        """Takes an announcement back."""
        return self._post(f"/api/v1/announced-keys/{fingerprint}/withdraw", None, AnnouncedKey)

    def revoke_device(self, name: str) -> DeviceInfo:
        """Refuses a board from now on."""
        return self._post(f"/api/v1/devices/{name}/revoke", None, DeviceInfo)

    def clear_device(self, name: str) -> DeviceInfo:
        """Says that a suspected clone is none."""
        return self._post(f"/api/v1/devices/{name}/clear", None, DeviceInfo)

    def newest_audit(self, most: int) -> list[AuditEntry]:
        """Returns the newest entries of the audit log, newest first."""
        return self._get("/api/v1/audit", list[AuditEntry], {"most": str(most)})

    def audit(self) -> Iterator[AuditEntry]:
        """Yields the whole audit log, oldest first."""
        after = 0
        while True:
            answer = self._send("GET", f"/api/v1/audit/after/{after}", params={"most": str(_PAGE)})
            page = wire.decode(answer.content, list[AuditEntry], "server's answer")
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].id
