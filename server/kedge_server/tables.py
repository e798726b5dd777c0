"""Every table, in one place for migrations."""

from __future__ import annotations

from sqlmodel import SQLModel

from kedge_server.accounts.tables import ApiTokenRow, LoginSessionRow, UserRow
from kedge_server.attestations.tables import AttestationRow
from kedge_server.audit.tables import AuditRow
from kedge_server.bench.tables import BenchJobRow
from kedge_server.console.devices.tables import SavedFilterRow
from kedge_server.devices.tables import (
    AnnouncedKeyRow,
    AssignmentRow,
    DeadKeyRow,
    DeviceRow,
    DeviceRunRow,
    EnrolmentTokenRow,
    LedgerRow,
    PendingDeviceRow,
    ReportRow,
    UsedNonceRow,
)
from kedge_server.events.tables import EventRow
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_server.replicas.tables import ChangeRow, LeaseRow
from kedge_server.repository.tables import MetadataRow
from kedge_server.rollouts.tables import (
    ApprovalRow,
    DecisionRow,
    DeploymentRow,
    DownloadRow,
    RolloutRow,
    StageRow,
)
from kedge_server.telemetry.tables import TelemetryRow, WindowRow
from kedge_server.webhooks.tables import DeliveryRow, WebhookRow

METADATA = SQLModel.metadata
TABLES = (AnnouncedKeyRow, ApiTokenRow, ApprovalRow, AssignmentRow, AttestationRow, AuditRow,
          BenchJobRow, BuildRow, ChangeRow, DeadKeyRow, DecisionRow, DeliveryRow, DeploymentRow,
          DeviceRow, DeviceRunRow, DownloadRow, EnrolmentTokenRow, EventRow, LeaseRow, LedgerRow,
          LoginSessionRow, MetadataRow, PendingDeviceRow, ReleaseRow, ReportRow, RolloutRow,
          SavedFilterRow,
          StageRow, TelemetryRow, UsedNonceRow, UserRow, WebhookRow, WindowRow)  # fmt: skip
