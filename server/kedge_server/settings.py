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
        refusals_at_once: How many refused attempts an address has on routes without a token.
        refusals_per_minute: How many of them grow back.
        egress_networks: Networks, as ``["10.0.0.0/8"]``, that webhooks may call although nobody
            outside could, also over plain HTTP.
        bench_lease_seconds: How long a bench worker holds a job without a word.
        bench_poll_seconds: What bench workers are told to wait.
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
    refusals_at_once: int = Field(default=30, ge=1, le=100_000)
    refusals_per_minute: float = Field(default=30.0, gt=0, le=1e6)
    egress_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    bench_lease_seconds: float = Field(default=60.0, ge=1, le=3600)
    bench_poll_seconds: float = Field(default=5.0, ge=0.1, le=3600)
