"""Errors of the agent, beside those of kedge_shared.errors.

KedgeError
├── EngineError     a runtime does not take an engine, or an engine fails on a frame
│   ├── Misfit      the board is not, or no more, what an engine was made for
│   ├── EngineGone  its process died: no further frame is of use
│   │   └── EngineKilled  the kernel ended it: memory was short
│   └── EngineLate  it is not done with a frame yet
├── SourceError     a source gives no frame
└── RunnerGone      the runner does not answer on its socket
"""

from __future__ import annotations

from kedge_shared.errors import KedgeError


class EngineError(KedgeError):
    """A runtime refuses an engine, or an engine fails on a frame."""

    exit_code = 8


class EngineGone(EngineError):
    """The process that an engine lived in died, or hung and was ended."""


class EngineKilled(EngineGone):
    """The kernel ended an engine's process because memory was short: that is no engine's fault."""


class EngineLate(EngineError):
    """An engine is not done with a frame in about its usual time; it may answer yet."""


class SourceError(KedgeError):
    """A source cannot be opened or gives no frame; it is opened again within its budget."""

    exit_code = 10


class RunnerGone(KedgeError):
    """The runner does not answer; it is restarted by the supervisor."""

    exit_code = 9


class Misfit(EngineError):
    """A board is not, or no more, what an engine was made for; the engine may be a good one."""
