"""From what a configuration says of a source to the source."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from kedge_agent.sources.base import Opener, Source
from kedge_agent.sources.files import Folder, Video
from kedge_agent.sources.iterable import Iterated
from kedge_agent.sources.live import Live, open_camera, open_stream
from kedge_agent.specs import SourceSpec, called, check_source
from kedge_shared.errors import InputError


def opener(spec: SourceSpec) -> Opener:
    """Returns what opens the source of ``spec``."""
    return partial(_open, spec)


def _open(spec: SourceSpec) -> Source:
    check_source(spec)
    if spec.kind == "camera" and spec.camera is not None:
        return Live(f"camera {spec.camera}", partial(open_camera, spec.camera), spec.fps)
    if spec.kind == "rtsp" and spec.url is not None:
        stream = partial(open_stream, spec.url, spec.timeout_seconds)
        return Live(f"stream from {urlsplit(spec.url).hostname}", stream, spec.fps)
    if spec.kind == "python" and spec.call is not None:
        return Iterated(called(spec.call), spec.fps, loop=spec.loop)
    if spec.path is None:
        raise InputError(f"source {spec.kind!r} has no path", "set source.path")
    if spec.kind == "video":
        return Video(spec.path, spec.fps, loop=spec.loop)
    return Folder(spec.path, spec.fps, loop=spec.loop)
