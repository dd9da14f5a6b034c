# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, in words: what was given, what was needed, which node."""

from __future__ import annotations

import os


class FastinferError(Exception):
    """Base of everything fastinfer raises on purpose."""


class ModelError(FastinferError):
    """The model or the saved program is wrong: broken file, bad attribute, types that do not fit."""


class UnsupportedError(ModelError):
    """The model is valid but cannot run as asked: an operator without a native form under ``strict=True``, an opset
    outside 7-26, a device or precision that this machine lacks."""


class InputError(FastinferError):
    """What was passed to a call is wrong: name, dtype, rank, shape, an index out of range."""


def is_own_mistake(error: BaseException) -> bool:
    """Whether a line of this package is at fault, and not the model: a name, attribute or argument that does not exist.
    Such an error goes to the caller as it is, with its traceback, so that it is found and mended. Lookups and values are
    not among them: what they fail on came out of the model."""
    if not isinstance(error, NameError | AttributeError | TypeError) or error.__traceback__ is None:
        return False
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    return os.path.abspath(last.tb_frame.f_code.co_filename).startswith(_PACKAGE)


_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
