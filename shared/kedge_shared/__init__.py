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
_MODULES = cast("dict[str, Any]", sys.modules)
_MODULES.setdefault("openvino_telemetry", None)
# Where rich and click are, httpx imports its own command line with them: five megabytes that would
# stay resident on every board, for a program that nobody calls.
_MODULES.setdefault("httpx._main", None)
