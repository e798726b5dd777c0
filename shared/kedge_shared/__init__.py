"""What at least two of builder, server and agent speak; imports none of them."""

import os
import sys
from typing import Any, cast

__version__ = "0.1.0"

# No board, builder or server tells anybody outside anything by itself. Libraries do: from 1.32 on
# ONNX Runtime's Linux wheels report sessions to their vendor, with an identifier of the device that
# they keep in the user's cache; OpenVINO's converter and NNCF report uses through the package
# openvino_telemetry. All three look once, when they are imported, so it is said here, before all.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("NNCF_CI", "1")
cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
