"""An engine's process over the fakes, on any Python: ``VERSION HOST_FILE SOCKET_FD``."""

import importlib.util
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

import cudart
import fake_tensorrt
import old_kernel

if __name__ == "__main__":
    version, file = sys.argv.pop(1), sys.argv.pop(1)
    spec = importlib.util.spec_from_file_location("engine_host", file)
    host = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(host)
    host.mmap.mmap = old_kernel.mapped
    fake = cudart.FakeCudart()
    sys.modules["tensorrt"] = fake_tensorrt.module(version, fake)
    host.find_library = lambda: fake
    host.main()
