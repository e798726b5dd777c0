"""One JSON message a line, a request and its answer. Only the agent's user may open the socket."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

SOCKET = "updater.sock"
LINE_LIMIT_BYTES = 64 * 1024


class InstallBundle(msgspec.Struct, frozen=True, tag="install_bundle"):
    """Install a release from a bundle that lies on this board.

    Attributes:
        path: Of the bundle, absolute.
    """

    path: Annotated[str, Meta(max_length=4096)]


class GoBack(msgspec.Struct, frozen=True, tag="go_back"):
    """Make the previous engine serve again, and end the update at hand, if there is one.

    Attributes:
        reason: Why, for the report and the quarantine.
    """

    reason: Annotated[str, Meta(max_length=300)]


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """It has begun; the journal tells how it goes on.

    Attributes:
        deployment: Identifier.
    """

    deployment: str


class Declined(msgspec.Struct, frozen=True, tag="declined"):
    """It was not begun, and nothing has changed.

    Attributes:
        exit_status: For the command line, as :mod:`kedge_shared.errors` numbers them.
        what: One line.
        mend: What to do about it.
    """

    exit_status: int
    what: str
    mend: str = ""


Command = InstallBundle | GoBack
Reply = Accepted | Declined
