"""The server's settings: from options and KEDGE_SERVER_* variables, bounded, units in the names."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServerSettings(BaseSettings):
    """Everything that can be set.

    Attributes:
        data: Database, artifacts and the operator's token.
        trust: Folder that ``kedge keys init`` wrote, without its ``offline`` part.
        host: Address to listen on.
        port: Port to listen on.
        operator_token: Instead of the generated one.
        tick_seconds: Between two looks at gates.
        poll_seconds: What devices are told to wait.
        assignment_days: How long an assignment may be taken up.
        timestamp_hours: How long the timestamp holds.
        snapshot_days: How long the snapshot holds.
        artifact_limit_mb: Largest upload, MiB.
        bench_lease_seconds: How long a bench worker holds a job without a word.
        bench_poll_seconds: What bench workers are told to wait.
        telemetry_hours_days: How long telemetry is kept by the hour.
        telemetry_days: How long it is kept by the day.
        metrics_token: Who reads ``/metrics``; without one only this machine does.
        event_rows: Newest events that are kept for those who come back for them.
        event_streams: Followers of events at a time.
        egress_networks: Networks, as ``["10.0.0.0/8"]``, that webhooks may call although nobody
            outside could, and in the clear.
        webhook_attempts: Of a delivery, about a day's worth.
        webhook_failures: Deliveries given up in a row; then the webhook is disabled.
    """

    model_config = SettingsConfigDict(env_prefix="KEDGE_SERVER_", extra="ignore")

    data: Path
    trust: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8470, ge=0, le=65535)
    operator_token: SecretStr | None = Field(default=None, min_length=16)
    tick_seconds: float = Field(default=2.0, ge=0.1, le=300)
    poll_seconds: float = Field(default=30.0, ge=0.2, le=86400)
    assignment_days: float = Field(default=7.0, gt=0, le=90)
    timestamp_hours: float = Field(default=24.0, gt=0, le=24 * 30)
    snapshot_days: float = Field(default=7.0, gt=0, le=90)
    artifact_limit_mb: int = Field(default=4096, ge=1, le=65536)
    bench_lease_seconds: float = Field(default=60.0, ge=1, le=3600)
    bench_poll_seconds: float = Field(default=5.0, ge=0.1, le=3600)
    telemetry_hours_days: float = Field(default=14.0, ge=1, le=366)
    telemetry_days: float = Field(default=400.0, ge=1, le=3660)
    metrics_token: SecretStr | None = Field(default=None, min_length=16)
    event_rows: int = Field(default=50_000, ge=100, le=10_000_000)
    event_streams: int = Field(default=100, ge=1, le=10_000)
    egress_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    webhook_attempts: int = Field(default=12, ge=1, le=30)
    webhook_failures: int = Field(default=5, ge=1, le=1000)
