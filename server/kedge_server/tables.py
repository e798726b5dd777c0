"""Every table, in one place for migrations."""

from __future__ import annotations

from sqlmodel import SQLModel

from kedge_server.audit.tables import AuditRow
from kedge_server.bench.tables import BenchJobRow
from kedge_server.devices.tables import (
    AssignmentRow,
    DeviceRow,
    EnrolmentTokenRow,
    LedgerRow,
    ReportRow,
)
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_server.replicas.tables import ChangeRow, LeaseRow
from kedge_server.repository.tables import MetadataRow
from kedge_server.rollouts.tables import DecisionRow, DeploymentRow, RolloutRow, StageRow

METADATA = SQLModel.metadata
TABLES = (AssignmentRow, AuditRow, BenchJobRow, BuildRow, ChangeRow, DecisionRow, DeploymentRow,
          DeviceRow, EnrolmentTokenRow, LeaseRow, LedgerRow, MetadataRow, ReleaseRow, ReportRow,
          RolloutRow, StageRow)  # fmt: skip
