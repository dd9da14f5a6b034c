# SPDX-License-Identifier: Apache-2.0
"""Triton kernels, one file per family, free of the engine: functions over torch tensors.

Each family has ``Problem`` (what a kernel is specialised to and tuned by), ``Config`` (block sizes, warps, stages, variant),
``configs(problem)`` (candidates), ``default(problem)``, ``workspace(problem, config)`` in bytes, and
``run(*tensors, problem, config)``, which only launches: it allocates nothing and reads nothing back, so that it can be captured
in a CUDA graph. Triton is imported with the family, never by ``import fastinfer``.
"""

from fastinfer.cuda import device as device  # says whether triton is to interpret, before anybody imports it
from fastinfer.cuda.kernels import interpreter_range as interpreter_range
