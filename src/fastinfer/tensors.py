# SPDX-License-Identifier: Apache-2.0
"""What goes in and out of a model: specifications, and arrays from other libraries."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfer import _core
from fastinfer.errors import InputError, ModelError


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name (``"object"`` for strings, sequences and optionals) and shape of an input or output.

    shape: ints, and names for extents that are free; None when even the rank is not declared.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None

    @staticmethod
    def from_port(port: dict[str, Any]) -> TensorSpec:
        code = port.get("optional") or port["dtype"]
        dtype = "object" if code == 255 else "any" if code == 0 else str(_core.numpy_dtype(code))
        return TensorSpec(port["name"], dtype, None if port["dims"] is None else tuple(port["dims"]))

    def zeros(self) -> np.ndarray:
        """An array of zeros of this type, free extents set to 1."""
        dtype = np.dtype("float32") if self.dtype == "any" else _numpy_dtype(self.dtype)
        return np.zeros([d if isinstance(d, int) else 1 for d in self.shape or ()], dtype)

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ",".join(map(str, self.shape))
        return f"{self.name}: {self.dtype}[{dims}]"


def check_optional(port: dict[str, Any], value: Any) -> None:
    """Raises InputError unless it is None or a tensor of the type that an optional input holds."""
    if value is None:
        return
    code = port["optional"]
    needed = "strings" if code == 8 else str(_core.numpy_dtype(code))
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"input '{port['name']}': given a {type(value).__name__}, needed: a tensor of {needed}, or None"
        )
    if code != 8 and _core.dtype_code(value.dtype) != code:
        raise InputError(f"input '{port['name']}': given {value.dtype}, needed: {needed} or None")


def _numpy_dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def to_numpy(value: Any, spec: TensorSpec | None = None) -> tuple[Any, bool]:
    """(array, whether it was a torch tensor). Shares memory where it can. Python numbers and lists become arrays of the
    type that `spec` asks for, if no value changes by more than rounding. For a spec that takes sequences, optionals or
    strings, None, strings and lists of arrays pass through. Raises InputError."""
    try:
        array, is_torch = _to_numpy(value, spec)
    except InputError as error:
        raise InputError(f"input '{spec.name}': {error}; needed {spec}" if spec else str(error)) from None
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        name = type(value).__name__
        needed = f"input '{spec.name}', which needs {spec}" if spec else "an array"
        raise InputError(f"the {name} that was given cannot be made {needed}: {error}") from error
    if spec is not None and spec.dtype not in ("object", "any"):
        if not isinstance(array, np.ndarray) or array.dtype.kind in "OSUV" and array.dtype.name not in _EXTENDED:
            what = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else repr(array)[:40]
            raise InputError(f"input '{spec.name}': {what} was given, needed {spec}")
    return array, is_torch


# Types of ml_dtypes, which numpy calls void.
_EXTENDED = {
    "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "uint4", "int4", "float4_e2m1fn",
    "float8_e8m0fnu", "uint2", "int2",
}  # fmt: skip


def _to_numpy(value: Any, spec: TensorSpec | None) -> tuple[Any, bool]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach()
        if value.device.type != "cpu":
            raise InputError(f"a tensor on {value.device} was given; this model runs on cpu")
        if value.layout != torch.strided:
            raise InputError(f"a tensor of layout {value.layout} was given; call to_dense() first")
        if value.dtype == torch.bfloat16:
            import ml_dtypes

            return value.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16), True
        return value.resolve_conj().resolve_neg().numpy(), True
    if isinstance(value, np.ndarray) or value is None or isinstance(value, str | bytes):
        return value, False
    if isinstance(value, np.generic):
        return np.asarray(value), False
    if isinstance(value, int | float):
        return _typed(np.asarray(value), spec), False
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value), False
    if isinstance(value, list | tuple):
        takes_arrays = spec is not None and spec.dtype not in ("object", "any")
        if not takes_arrays and (not value or any(isinstance(v, np.ndarray) or v is None for v in value)):
            return list(value), False
        return _typed(np.asarray(value), spec), False
    if hasattr(value, "__array__"):
        return np.asarray(value), False
    raise InputError(f"an input of type {type(value).__name__} was given; needed: an array")


def _typed(array: np.ndarray, spec: TensorSpec | None) -> np.ndarray:
    """Python has one type of numbers with a point and one without: they take the type that is needed. Numbers with a
    point do not become integers, and integers that do not fit stay as they are (which the engine then refuses)."""
    if spec is None or spec.dtype in ("object", "any") or array.dtype.kind not in "iuf":
        return array
    needed = _numpy_dtype(spec.dtype)
    if needed == array.dtype or needed.kind in "bOSU" or (array.dtype.kind == "f" and needed.kind in "iu"):
        return array
    made = array.astype(needed)
    return made if needed.kind not in "iu" or np.array_equal(made, array) else array


def from_numpy_like(array: Any) -> Any:
    """numpy → torch, sharing memory; what torch has no type for stays numpy."""
    if not isinstance(array, np.ndarray):
        return array
    torch = sys.modules["torch"]
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(array)
    except TypeError:
        return array


def check_declared(specs: Sequence[TensorSpec], results: Sequence[Any]) -> list[TensorSpec]:
    """What comes out is what the model declares. A wrong type is a ModelError; a wrong shape, which files often have and
    other runtimes let pass, is said by a warning, and taken out of the specs that are returned."""
    return [_checked(spec, result) for spec, result in zip(specs, results)]


def _checked(spec: TensorSpec, result: Any) -> TensorSpec:
    if spec.dtype in ("object", "any") or not isinstance(result, np.ndarray):
        return spec
    given, declared = TensorSpec(spec.name, result.dtype.name, result.shape), spec.shape
    if result.dtype.name != spec.dtype:
        raise ModelError(f"output '{spec.name}': the model declares {spec}, but computes {given}")
    if declared is None:
        return spec
    same_rank = len(declared) == result.ndim
    if same_rank and all(not isinstance(d, int) or d == e for d, e in zip(declared, result.shape)):
        return spec
    warnings.warn(f"output '{spec.name}': the model declares {spec}, but computes {given}", stacklevel=6)
    free = [d if not isinstance(d, int) or d == e else f"?{k}" for k, (d, e) in enumerate(zip(declared, result.shape))]
    return TensorSpec(spec.name, spec.dtype, tuple(free) if same_rank else None)
