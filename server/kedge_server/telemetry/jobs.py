"""What the scheduler does for telemetry."""

from __future__ import annotations

import time

from kedge_server.context import Context
from kedge_server.database import transaction
from kedge_server.telemetry import service
from kedge_server.telemetry.service import Retention

_DAY = 86400.0
#: Batches of one run: what is left waits for the next.
_BATCHES = 50


def roll_up(context: Context) -> None:
    """Sums what came in since, and forgets what is old."""
    retention = Retention(
        context.settings.telemetry_hours_days * _DAY, context.settings.telemetry_days * _DAY
    )
    for _ in range(_BATCHES):
        with transaction(context.engine) as session:
            if not service.roll_up(session):
                service.forget(session, retention, time.time())
                return
