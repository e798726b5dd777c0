"""Every table, in one place for migrations."""

from __future__ import annotations

from sqlmodel import SQLModel

from kedge_server.attestations.tables import AttestationRow
from kedge_server.audit.tables import AuditRow
from kedge_server.bench.tables import BenchJobRow
from kedge_server.devices.tables import AssignmentRow, DeviceRow, EnrolmentTokenRow, ReportRow
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_server.repository.tables import MetadataRow
from kedge_server.rollouts.tables import DecisionRow, DeploymentRow, RolloutRow, StageRow

METADATA = SQLModel.metadata
TABLES = (AssignmentRow, AttestationRow, AuditRow, BenchJobRow, BuildRow, DecisionRow,
          DeploymentRow, DeviceRow, EnrolmentTokenRow, MetadataRow, ReleaseRow, ReportRow,
          RolloutRow, StageRow)  # fmt: skip
