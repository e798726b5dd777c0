"""Ultralytics without network, chatter and files in the user's home."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile


def quiet() -> None:
    """Call before the first import of ultralytics."""
    if "YOLO_CONFIG_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="kedge-ultralytics-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["YOLO_CONFIG_DIR"] = folder
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    from ultralytics.utils import LOGGER

    LOGGER.setLevel(logging.ERROR)
