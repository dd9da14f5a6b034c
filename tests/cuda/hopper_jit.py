# SPDX-License-Identifier: Apache-2.0
"""A second Python in which Triton believes in an H200: plans models and compiles, through Triton's own launcher with the very
arguments of a launch, every kernel that they would run. Nothing is launched. Prints a JSON object per line.

    python hopper_jit.py encoder:bf16 /path/to/model.onnx:fp8 …
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.pop("FASTINFER_CUDA", None)
os.environ.pop("TRITON_INTERPRET", None)

import numpy as np
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from fastinfer import _core
from fastinfer.cuda import ahead, device
from fastinfer.cuda import model as cuda_model
from fastinfer.cuda.kernels.launch import only_compile
from fastinfer.cuda.plan import make_plan


class Driver:
    """What Triton asks of a driver until a kernel is loaded."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class Properties:
    multi_processor_count = device.H200[2]


def believe():
    driver.set_active(Driver())
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_properties = lambda *_: Properties
    device.open_device = cuda_model.open_device = lambda name: device.Device(torch.device("cpu"), *device.H200)


def steps_of(model, batch):
    executor = model._executor
    signature = [
        (_core.dtype_code(np.dtype(spec.dtype)), tuple(d if isinstance(d, int) else batch for d in spec.shape))
        for spec in model.inputs
    ]
    return make_plan(executor.program, signature, executor._tuner).steps


def compiled(steps):
    """How many kernels, and what the compiler refused."""
    count, refused = ahead.compile_ahead(steps), []
    with only_compile():
        for step in filter(ahead._is_triton, steps):
            try:
                step.run(*[h.tensor if h is not None else None for h in step.handles], **step.static)
            except Exception as e:
                refused.append(f"{step.kernel}: {type(e).__name__}: {e}"[:1000])
    return count, refused


def main():
    import fastinfer as fi

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from nets import NETS

    believe()
    for text in sys.argv[1:]:
        name, precision = text.rsplit(":", 1)
        model = fi.compile(NETS[name]()[0] if name in NETS else name, device="cuda", precision=precision)
        steps, began = steps_of(model, 4), time.time()
        count, refused = compiled(steps)
        torch_steps = sum(s.kernel.startswith("torch.") for s in steps)
        print(
            json.dumps(
                {"model": text, "steps": len(steps), "torch": torch_steps, "compiled": count, "refused": refused,
                 "seconds": round(time.time() - began, 1)}
            ), flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
