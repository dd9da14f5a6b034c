# SPDX-License-Identifier: Apache-2.0
"""Triton's kernels (interpreted) and our CUDA C++ ones (their arithmetic on the host) as work of the current stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from pretend.tensors import OnDevice, unwrap
from pretend.work import DEVICE

GRID = (2**31 - 1, 65535, 65535)
_BY_VALUE = (int, float, bool, type(None))


def install() -> None:
    from triton.runtime import interpreter

    run = interpreter.InterpretedFunction.run

    def launch(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        if warmup:
            return
        named = {k: v for k, v in kwargs.items() if k in self.arg_names}
        constants = _constants(self)
        for name, value in [*zip(self.arg_names, args), *named.items()]:
            if name not in constants:
                _passes(self.__name__, name, value)
        _fits(self.__name__, grid)
        hosts = [_host(a) for a in args]
        DEVICE.launch(partial(run, self, *hosts, grid=grid, warmup=False, **{k: _host(v) for k, v in kwargs.items()}))

    interpreter.InterpretedFunction.run = launch


def _constants(kernel: Any) -> set[str]:
    from triton.runtime.jit import _normalize_ty

    return {k for k, v in kernel.fn.__annotations__.items() if _normalize_ty(v) == "constexpr"}


def _passes(kernel: str, name: str, value: Any) -> None:
    """What triton's launcher takes: device pointers, and Python's own numbers (numpy's have no specialisation)."""
    if isinstance(value, tuple | list):
        for v in value:
            _passes(kernel, name, v)
    elif isinstance(value, torch.Tensor):
        if not isinstance(value, OnDevice):
            raise ValueError(f"{kernel}: pointer argument {name} cannot be accessed from Triton (cpu tensor?)")
        if value.dtype.is_complex:
            raise TypeError(f"{kernel}: argument {name} is {value.dtype}")
    elif hasattr(value, "base") and isinstance(value.base, torch.Tensor):
        _passes(kernel, name, value.base)
    elif type(value) not in _BY_VALUE and not hasattr(value, "fn"):
        raise TypeError(f"{kernel}: failed to specialize argument {name} of type {type(value).__name__}")
    elif type(value) is int and not -(2**63) <= value < 2**64:
        raise OverflowError(f"{kernel}: argument {name} is {value}")


def _fits(kernel: str, grid: Any) -> None:
    if callable(grid):
        return
    for extent, most in zip(grid, GRID):
        if type(extent) is not int or not 0 <= extent <= most:
            raise RuntimeError(f"{kernel}: Triton Error [CUDA]: invalid argument (grid {grid})")


def _host(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_host, value))
    if hasattr(value, "base") and isinstance(value.base, OnDevice):  # a TensorDescriptor
        return type(value)(value.base.host, value.shape, value.strides, value.block_shape, value.padding)
    return unwrap(value)


# ------------------------------------------------------------------------------------------------- kernels in CUDA C++


def install_native() -> None:
    from fastinfer.cuda import native

    if native._cuda is None:
        return
    native.mlp = _checked(native._mlp, partial(_mlp, native))
    native.wna16 = _wna16(native)
    native.pack_rows = _rows(native, False)
    native.unpack_rows = _rows(native, True)


def _checked(check: Callable[..., Any], compute: Callable[..., Any]) -> Callable[..., None]:
    """A launch: what the real one checks, then the arithmetic, late."""

    def launch(*tensors: Any) -> None:
        check(*tensors)
        DEVICE.launch(partial(compute, *_deep(tensors)))

    return launch


def _deep(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_deep(v) for v in value)
    if isinstance(value, torch.Tensor) and not isinstance(value, OnDevice):
        raise RuntimeError("a CUDA C++ kernel was given a tensor on the host: an illegal memory access")
    return unwrap(value)


def _float(t: torch.Tensor | None) -> torch.Tensor | None:
    return None if t is None else t.float()


def _mlp(native: Any, x: torch.Tensor, layers: Any, y: torch.Tensor) -> None:
    made = torch.empty(y.shape)
    native.mlp_on_host(x.float(), [(w.float(), _float(b), act) for w, b, act in layers], made)
    y.copy_(made)


def _wna16(native: Any) -> Callable[..., None]:
    def launch(a: Any, weights: Any, meta: Any, bias: Any, y: Any, *, bits: int, block: int, warps: int = 0,
               split: int = 0) -> None:  # fmt: skip
        bf16 = a.dtype == torch.bfloat16
        native._wna16(a, weights, meta, bias, y, bits, block, bf16, warps, split)
        host = _deep((a, weights, meta, bias, y))

        def run() -> None:
            ha, hw, hm, hb, hy = host
            made = torch.empty(hy.shape)
            native.wna16_on_host(ha.float(), hw, hm, _float(hb), made, bits=bits, block=block, bf16=bf16, split=split)
            hy.copy_(made)

        DEVICE.launch(run)

    return launch


def _rows(native: Any, back: bool) -> Callable[..., None]:
    def launch(source: Any, offsets: Any, target: Any) -> None:
        padded, packed = (target, source) if back else (source, target)
        native._ragged(source, target, offsets, padded, packed)
        host = _deep((padded, packed, offsets))

        def run() -> None:
            hp, hk, ho = host
            if back:
                hp.zero_()
            bounds = ho.clamp(0, hk.shape[0]).tolist()
            for i, (first, end) in enumerate(zip(bounds, bounds[1:])):
                n = max(0, min(end - first, hp.shape[1]))
                if back:
                    hp[i, :n] = hk[first : first + n]
                else:
                    hk[first : first + n] = hp[i, :n]

        DEVICE.launch(run)

    return launch
