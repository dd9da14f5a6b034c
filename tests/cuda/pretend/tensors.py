# SPDX-License-Identifier: Apache-2.0
"""The tensor that says cuda:0. Its operators run on the host tensor it holds, when its stream gets to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from pretend import guard, memory, refusals
from pretend.memory import Memory
from pretend.work import DEVICE

PLACE = torch.device("cuda", 0)
NO_VALUES = {"_fused_sdp_choice", "is_same_size", "_has_compatible_shallow_copy_type"}


class OnDevice(torch.Tensor):
    """host: its elements; owner: the allocation that they lie in."""

    host: torch.Tensor
    owner: Memory

    @staticmethod
    def __new__(cls, host: torch.Tensor, owner: Memory) -> OnDevice:
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls, host.size(), strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype, device=PLACE,
        )  # fmt: skip
        made.host, made.owner = host, owner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return operate(func, args, kwargs or {})

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def untyped_storage(self) -> Any:
        return self.host.untyped_storage()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def is_pinned(self, *_: Any) -> bool:
        return False

    def record_stream(self, stream: Any) -> None:
        raise NotImplementedError("record_stream on the pretended device")

    def __repr__(self, **_: Any) -> str:
        return f"tensor(…, device='cuda:0', size={tuple(self.shape)}, dtype={self.dtype})"


def unwrap(value: Any) -> Any:
    return value.host if isinstance(value, OnDevice) else value


def wrap(host: Any, owner: Memory) -> Any:
    return OnDevice(host, owner) if isinstance(host, torch.Tensor) else host


def fresh(size: Any, stride: Any, dtype: torch.dtype) -> OnDevice:
    """Unwritten memory."""
    last = sum((n - 1) * s for n, s in zip(size, stride)) + 1 if all(size) else 0
    owner = Memory(last * dtype.itemsize)
    return OnDevice(owner.tensor(size, stride, dtype), owner)


def like(tensor: torch.Tensor) -> OnDevice:
    return fresh(tensor.size(), tensor.stride(), tensor.dtype)


# ------------------------------------------------------------------------------------------------------------ operators


def operate(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = refusals.name_of(func)
    if name == "copy_":
        return _copy(*args, **kwargs)
    if name == "_to_copy":
        return _to_copy(func, args[0], kwargs)
    given = [t for t in _leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    ours = [t for t in given if isinstance(t, OnDevice)]
    refusals.places(func, ours, [t for t in given if not isinstance(t, OnDevice)])
    if not ours:
        return func(*args, **kwargs)
    if func.is_view or name in ("lift_fresh", "detach"):
        return tree_map(partial(wrap, owner=ours[0].owner), func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs)))
    if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu":
        return _on_host(func, args, kwargs)
    refusals.types(func, ours)
    if name in ("set_", "resize_"):
        raise NotImplementedError(f"{name} on the pretended device")
    return _launched(func, name, args, {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory")})


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for v in value for leaf in _leaves(v)]
    return [leaf for v in value.values() for leaf in _leaves(v)] if isinstance(value, dict) else [value]


def _on_host(func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
    """empty_like(x, device="cpu") and its kind."""
    made = func(*tree_map(unwrap, args), **{**kwargs, "pin_memory": False})
    return memory.pinned(made.size(), made.stride(), made.dtype) if kwargs.get("pin_memory") else made


def _launched(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
    hosts, named = tree_map(unwrap, args), tree_map(unwrap, kwargs)
    work = partial(func, *hosts, **named)
    if name in NO_VALUES:
        return work()
    waits = name in refusals.WAITING or refusals.masks(func, args)
    if refusals.host_indices(func, args) and DEVICE.capturing():
        DEVICE.spoil(DEVICE.capturing(), "indices are copied from the host")
    if waits:
        _wait(name)
    written = [_argument(func, i, args, kwargs) for i, a in enumerate(func._schema.arguments) if _writes(a)]
    if written and all(r.alias_info is not None for r in func._schema.returns):
        DEVICE.launch(work)
        return written[0] if len(func._schema.returns) == 1 else tuple(written)
    shapes = work() if waits else _shapes(func, args, kwargs, work)
    if not any(isinstance(t, torch.Tensor) for t in _leaves(shapes)):
        return shapes
    made = tree_map(lambda t: like(t) if isinstance(t, torch.Tensor) else t, shapes)
    targets = [t.host for t in _leaves(made) if isinstance(t, OnDevice)]
    if waits:
        for target, source in zip(targets, _tensors(shapes)):
            target.copy_(source)
        return made

    def run() -> None:
        for target, source in zip(targets, _tensors(work()), strict=True):
            if source.numel() or not target.numel():  # what only a backward pass reads, the CPU leaves out
                target.copy_(source)

    DEVICE.launch(run)
    return made


def _tensors(value: Any) -> list[torch.Tensor]:
    return [t for t in _leaves(value) if isinstance(t, torch.Tensor)]


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _argument(func: Any, i: int, args: Any, kwargs: dict[str, Any]) -> Any:
    return args[i] if i < len(args) else kwargs[func._schema.arguments[i].name]


def _shapes(func: Any, args: Any, kwargs: dict[str, Any], work: Callable[[], Any]) -> Any:
    """Results without values: from torch's meta device, or where that has no form of it, from a run on whatever the operands
    hold now."""
    try:
        return func(*tree_map(_meta, args), **tree_map(_meta, kwargs))
    except (NotImplementedError, RuntimeError):
        return work()


def _meta(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.device.type == "meta":
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")


def _wait(what: str) -> None:
    """The host waits for the current stream."""
    DEVICE.host_waits(f"{what} waits for the device", DEVICE.current)
    DEVICE.finish(DEVICE.current)


# --------------------------------------------------------------------------------------------------------------- copies


def _copy(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    to, of = unwrap(target), unwrap(source)
    both = isinstance(target, OnDevice) and isinstance(source, OnDevice)
    late = both or (non_blocking and memory.is_pinned(target if isinstance(source, OnDevice) else source))
    if late:
        DEVICE.launch(partial(to.copy_, of))
        return target
    if DEVICE.capturing():
        DEVICE.spoil(DEVICE.capturing(), "a copy between host and device that is not pinned and non-blocking")
    if isinstance(source, OnDevice):
        _wait("a copy to the host")
        to.copy_(of)
    else:
        DEVICE.launch(partial(to.copy_, of.clone()))
        if not non_blocking:
            _wait("a copy to the device")
    return target


def _to_copy(func: Any, source: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
    to = torch.device(kwargs.get("device") or source.device)
    options = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory")}
    if to.type == "cuda":
        return _launched(func, "_to_copy", (source,), options)
    form = func(torch.empty_strided(source.size(), source.stride(), dtype=source.dtype, device="meta"), **options)
    late = kwargs.get("non_blocking", False)
    made = memory.pinned if late else lambda *a: torch.empty_strided(*a[:2], dtype=a[2])
    return _copy(made(form.size(), form.stride(), form.dtype), source, late)


# ------------------------------------------------------------------------------------------- operators that make tensors

_LIBRARY = torch.library.Library("aten", "IMPL", "CUDA")
_FROM_NOTHING = (
    "arange", "arange.start", "arange.start_step", "linspace", "logspace", "eye", "eye.m", "randperm", "tril_indices",
    "triu_indices", "range", "range.step",
)  # fmt: skip


def _empty(size: Any, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None,
           memory_format: Any = None) -> OnDevice:  # fmt: skip
    dtype = dtype or torch.get_default_dtype()
    return like(torch.empty(size, dtype=dtype, device="meta", memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size: Any, stride: Any, dtype: Any = None, layout: Any = None, device: Any = None,
                   pin_memory: Any = None) -> OnDevice:  # fmt: skip
    return fresh(size, stride, dtype or torch.get_default_dtype())


def _counted(func: Any, *args: Any, **kwargs: Any) -> OnDevice:
    """A kernel that reads nothing."""
    values = func(*args, **{k: v for k, v in kwargs.items() if k not in ("device", "layout", "pin_memory")})
    made = like(values)
    DEVICE.launch(partial(made.host.copy_, values))
    return made


def install() -> None:
    guard.install()
    _LIBRARY.impl("empty.memory_format", _empty)
    _LIBRARY.impl("empty_strided", _empty_strided)
    _LIBRARY.impl("copy_", _copy)  # torch.tensor(…, device=…) copies without asking the tensor's class
    for name in _FROM_NOTHING:
        base, _, overload = name.partition(".")
        _LIBRARY.impl(name, partial(_counted, getattr(getattr(torch.ops.aten, base), overload or "default")))
