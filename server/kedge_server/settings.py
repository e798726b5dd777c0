"""The server's settings: from options and KEDGE_SERVER_* variables, bounded, units in the names."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServerSettings(BaseSettings):
    """Everything that can be set.

    Attributes:
        data: Database, artifacts and the operator's token.
        trust: Folder that ``kedge keys init`` wrote, without its ``offline`` part.
        host: Address to listen on.
        port: Port to listen on.
        operator_token: The first administrator's, instead of the generated one.
        access_minutes: How long a board's access token holds.
        clones: Whether a board that seems to be two is told to hold what it has, or only listed.
        pending_limit: Boards that may wait for approval at once.
        pending_hours: After so long without asking again such a board is forgotten.
        trusted_proxies: Addresses or networks whose ``X-Forwarded-*`` headers are believed.
        plain_http_from: Networks that may speak plain HTTP beside this machine: a container's own
            bridge, never a network with other machines.
        tls_certificate: Certificate chain (PEM), if the server ends TLS itself.
        tls_key: Its private key.
        session_hours: How long a login holds.
        tick_seconds: Between two looks at gates.
        poll_seconds: What devices are told to wait.
        assignment_days: How long an assignment may be taken up.
        timestamp_hours: How long the timestamp holds.
        snapshot_days: How long the snapshot holds.
        artifact_limit_mb: Largest upload, MiB.
        refusals_at_once: How many refused attempts an address has on routes without a token.
        refusals_per_minute: How many of them grow back.
        egress_networks: Networks, as ``["10.0.0.0/8"]``, that webhooks may call although nobody
            outside could, also over plain HTTP.
        bench_lease_seconds: How long a bench worker holds a job without a word.
        bench_poll_seconds: What bench workers are told to wait.
        database: PostgreSQL URL, instead of SQLite in ``data``.
        connections: To PostgreSQL, at most.
        store: ``s3://BUCKET[/PREFIX]`` or a folder that servers share, instead of one in ``data``.
        poll_rules: Selector → seconds, for devices that are told something else than
            ``poll_seconds``; the first that names a device holds.
        lease_seconds: How long a server leads without renewing its lease.
        change_seconds: Between two looks at what other servers changed.
        seen_seconds: Between two writings of when devices were last seen.
        download_slots: Downloads at once; 0 is without limit.
        report_days: How long it is known which reports were taken.
        telemetry_hours_days: How long telemetry is kept by the hour.
        telemetry_days: How long it is kept by the day.
        metrics_token: Who reads ``/metrics``; without one only this machine does.
        event_rows: Newest events that are kept for those who come back for them.
        event_streams: Followers of events at a time.
        webhook_attempts: Of a delivery, about a day's worth.
        webhook_failures: Deliveries given up in a row; then the webhook is disabled.
    """

    model_config = SettingsConfigDict(env_prefix="KEDGE_SERVER_", extra="ignore")

    data: Path
    trust: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8470, ge=0, le=65535)
    operator_token: SecretStr | None = Field(default=None, min_length=16)
    access_minutes: float = Field(default=60.0, ge=1, le=1440)
    clones: Literal["hold", "list"] = "hold"
    pending_limit: int = Field(default=1000, ge=1, le=100_000)
    pending_hours: float = Field(default=72.0, gt=0, le=24 * 365)
    trusted_proxies: str = "127.0.0.1,::1"
    plain_http_from: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    session_hours: float = Field(default=12.0, gt=0, le=24 * 7)
    tick_seconds: float = Field(default=2.0, ge=0.1, le=300)
    poll_seconds: float = Field(default=30.0, ge=0.2, le=86400)
    assignment_days: float = Field(default=7.0, gt=0, le=90)
    timestamp_hours: float = Field(default=24.0, gt=0, le=24 * 30)
    snapshot_days: float = Field(default=7.0, gt=0, le=90)
    artifact_limit_mb: int = Field(default=4096, ge=1, le=65536)
    refusals_at_once: int = Field(default=30, ge=1, le=100_000)
    refusals_per_minute: float = Field(default=30.0, gt=0, le=1e6)
    egress_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    bench_lease_seconds: float = Field(default=60.0, ge=1, le=3600)
    bench_poll_seconds: float = Field(default=5.0, ge=0.1, le=3600)
    database: SecretStr | None = None
    connections: int = Field(default=10, ge=4, le=1000)
    store: str | None = Field(default=None, pattern=r"^(s3://[^/]+(/.*)?|/.*)$")
    poll_rules: dict[str, Annotated[float, Field(ge=0.2, le=86400)]] = Field(default_factory=dict)
    lease_seconds: float = Field(default=15.0, ge=1, le=600)
    change_seconds: float = Field(default=1.0, ge=0.1, le=60)
    seen_seconds: float = Field(default=30.0, ge=1, le=3600)
    download_slots: int = Field(default=64, ge=0, le=100_000)
    report_days: float = Field(default=90.0, ge=1, le=3650)
    telemetry_hours_days: float = Field(default=14.0, ge=1, le=366)
    telemetry_days: float = Field(default=400.0, ge=1, le=3660)
    metrics_token: SecretStr | None = Field(default=None, min_length=16)
    event_rows: int = Field(default=50_000, ge=100, le=10_000_000)
    event_streams: int = Field(default=100, ge=1, le=10_000)
    webhook_attempts: int = Field(default=12, ge=1, le=30)
    webhook_failures: int = Field(default=5, ge=1, le=1000)
