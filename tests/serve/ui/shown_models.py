# SPDX-License-Identifier: Apache-2.0
"""The repository that is looked at here, and keys."""

from __future__ import annotations

import json

import numpy as np
from onnx import TensorProto, helper
from small_models import F, _model, accumulate, echo, mlp, pick, put, scale, two_outputs

from fastinfer.serve.access.keys import digest_of

ADMIN, READER, NARROW, BLIND = "fi_admin-key", "fi_reader-key", "fi_narrow-key", "fi_blind-key"
MARKUP = "<img src=x onerror=\"document.title='taken'\"> & <b>bold</b>"


def colours():
    """The mean of each channel of pictures of 8 x 6."""
    return _model(
        [helper.make_node("ReduceMean", ["picture", "axes"], ["mean"], keepdims=0)],
        [("picture", F, ["n", 3, 6, 8])], [("mean", F, ["n", 3])], [("axes", np.array([2, 3]))],
    )  # fmt: skip


def negative():
    """255 - pixel, channels last, bytes in and out."""
    u8 = TensorProto.UINT8
    return _model(
        [helper.make_node("Sub", ["full", "photo"], ["negative"])],
        [("photo", u8, ["n", "h", "w", 3])], [("negative", u8, ["n", "h", "w", 3])], [("full", np.uint8(255))],
    )  # fmt: skip


def marked():
    """A model whose tensors are called like markup."""
    return _model(
        [helper.make_node("Neg", ["<i>in</i>"], ["<script>1</script>"])],
        [("<i>in</i>", F, ["n", 2])], [("<script>1</script>", F, ["n", 2])],
    )  # fmt: skip


def fill(root):
    """The repository of these tests."""
    put(root, "double", 1, scale(2), 'description = "y = factor · x"\nowner = "tests"\nversions = "all"\n'
        '[labels]\nteam = "vision"\n')  # fmt: skip
    put(root, "double", 2, scale(3))
    put(root, "mlp", 1, mlp())
    put(root, "colours", 1, colours(), 'description = "Mean of each channel"\n')
    put(root, "negative", 1, negative())
    put(root, "words", 1, echo())
    put(root, "pick", 1, pick())
    put(root, "pair", 1, two_outputs())
    put(root, "sum", 1, accumulate(), '[sequence]\nstate = {held = "next"}\n')
    put(root, "marked", 1, marked(), f"description = '''{MARKUP}'''\nowner = '<u>me</u>'\n")
    broken = root / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"not a model")


def write_keys(path):
    rows = [("operator", ADMIN, ["infer", "read", "admin", "metrics"], ["*"]), ("reader", READER, ["infer", "read"], ["*"]),
            ("narrow", NARROW, ["read", "infer"], ["double"]), ("blind", BLIND, ["infer"], ["*"])]  # fmt: skip
    path.write_text("".join(
        f"[[key]]\nname = {json.dumps(n)}\nsha256 = '{digest_of(k)}'\nscopes = {json.dumps(s)}\nmodels = {json.dumps(m)}\n"
        for n, k, s, m in rows
    ))  # fmt: skip
    path.chmod(0o600)
