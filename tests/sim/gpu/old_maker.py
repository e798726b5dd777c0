"""A plan's builder over the fakes, on any Python: ``VERSION MAKER_FILE [CUDA_ERROR]``."""

import importlib.util
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

import cudart
import fake_builder
import fake_tensorrt
import old_kernel

if __name__ == "__main__":
    version, file, starts = (*sys.argv[1:], "0")[:3]
    spec = importlib.util.spec_from_file_location("plan_maker", file)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    maker.mmap.mmap = old_kernel.mapped
    fake = cudart.FakeCudart()
    fake.starts = int(starts)
    sys.modules["tensorrt"] = fake_builder.builds(fake_tensorrt.module(version, fake))
    sys.argv[1:] = ["tensorrt"]
    maker.main()
