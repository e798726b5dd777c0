"""How often which devices ask, by rules that name them with selectors."""

from __future__ import annotations

from typing import Any

from kedge_server.devices.facts import COLUMNS, AnyDevice, facts_of_device
from kedge_server.devices.selectors import matches, parse
from kedge_server.devices.tables import DeviceRow
from kedge_server.settings import ServerSettings


class Intervals:
    """The rules of ``KEDGE_SERVER_POLL_RULES``; the first that names a device holds.

    A rule looks at what a device was when it was last looked up: at its enrolment, or when its
    assignment last changed.

    Args:
        settings: The server's.

    Raises:
        SelectorError: A rule's selector is malformed.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._rules = [(parse(text), seconds) for text, seconds in settings.poll_rules.items()]
        self._else = settings.poll_seconds
        #: What :meth:`of` asks of a device.
        self.columns: tuple[Any, ...] = COLUMNS if self._rules else (DeviceRow.id,)

    def of(self, device: AnyDevice) -> float:
        """Returns a device's interval, seconds."""
        if not self._rules:
            return self._else
        facts = facts_of_device(device)
        return next((each for rule, each in self._rules if matches(rule, facts)), self._else)
