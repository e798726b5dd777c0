"""Every table, in one place for migrations."""

from __future__ import annotations

from sqlmodel import SQLModel

from kedge_server.accounts.tables import ApiTokenRow, LoginSessionRow, UserRow
from kedge_server.audit.tables import AuditRow
from kedge_server.bench.tables import BenchJobRow
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
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_server.replicas.tables import ChangeRow, LeaseRow
from kedge_server.repository.tables import MetadataRow
from kedge_server.rollouts.tables import (
    ApprovalRow,
    DecisionRow,
    DeploymentRow,
    RolloutRow,
    StageRow,
)

METADATA = SQLModel.metadata
TABLES = (AnnouncedKeyRow, ApiTokenRow, ApprovalRow, AssignmentRow, AuditRow, BenchJobRow,
          BuildRow, ChangeRow, DeadKeyRow, DecisionRow, DeploymentRow, DeviceRow, DeviceRunRow,
          EnrolmentTokenRow, LeaseRow, LedgerRow, LoginSessionRow, MetadataRow, PendingDeviceRow,
          ReleaseRow, ReportRow, RolloutRow, StageRow, UsedNonceRow, UserRow)  # fmt: skip
