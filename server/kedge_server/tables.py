"""Every table, in one place for migrations."""

from __future__ import annotations

from sqlmodel import SQLModel

from kedge_server.audit.tables import AuditRow
from kedge_server.bench.tables import BenchJobRow
from kedge_server.devices.tables import AssignmentRow, DeviceRow, EnrolmentTokenRow, ReportRow
from kedge_server.events.tables import EventRow
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_server.repository.tables import MetadataRow
from kedge_server.rollouts.tables import (
    DecisionRow,
    DeploymentRow,
    DownloadRow,
    RolloutRow,
    StageRow,
)
from kedge_server.telemetry.tables import TelemetryRow, WindowRow
from kedge_server.webhooks.tables import DeliveryRow, WebhookRow

METADATA = SQLModel.metadata
TABLES = (AssignmentRow, AuditRow, BenchJobRow, BuildRow, DecisionRow, DeliveryRow, DeploymentRow,
          DeviceRow, DownloadRow, EnrolmentTokenRow, EventRow, MetadataRow, ReleaseRow, ReportRow,
          RolloutRow, StageRow, TelemetryRow, WebhookRow, WindowRow)  # fmt: skip
