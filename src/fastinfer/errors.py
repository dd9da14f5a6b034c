# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, in words: what was given, what was needed, which node."""


class FastinferError(Exception):
    """Base of everything fastinfer raises on purpose."""


class ModelError(FastinferError):
    """The model or the saved program is wrong: broken file, bad attribute, types that do not fit."""


class UnsupportedError(ModelError):
    """The model is valid but cannot run as asked: an operator without a native form under ``strict=True``, an opset
    outside 7-26, a device or precision that this machine lacks."""


class InputError(FastinferError):
    """What was passed to a call is wrong: name, dtype, rank, shape, an index out of range."""
