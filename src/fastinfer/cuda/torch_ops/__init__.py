# SPDX-License-Identifier: Apache-2.0
"""The torch form of operators: what runs where there is no kernel of ours, on any device.

``find(domain, op)`` gives a function of a :class:`Call`, or None. Fused operators of the domain `fastinfer` run by their
function bodies in standard operators.
"""

from fastinfer.cuda.torch_ops.call import Call, NotStatic, TorchOp
from fastinfer.cuda.torch_ops.table import find

__all__ = ["Call", "NotStatic", "TorchOp", "find"]
