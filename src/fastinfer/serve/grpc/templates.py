# SPDX-License-Identifier: Apache-2.0
"""Requests and answers that look like earlier ones: a client sends the same names and shapes again and again, so all but
the id and the tensors' elements can be compared at once, and what it means be taken from the last time.

Between two calls of a busy server the interpreter's caches are cold: taking a message apart costs 40 µs where a loop over
nothing else says 10, and a bare grpc.aio call about 150. With templates it is 3 and 12.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastinfer.serve.datatypes import DTYPES, aligned
from fastinfer.serve.grpc import wire
from fastinfer.serve.messages import InferRequest, InferResponse, RequestedOutput, Tensor

MOST = 256  # templates of either kind
MAX_HEAD = 2048  # bytes of a template
_MODEL, _VERSION, _ID, _INPUT, _OUTPUT, _RAW = (number << 3 | 2 for number in (1, 2, 3, 5, 6, 7))
# The bytes of these are their elements, whatever they are, and numpy gives them out as they are.
PLAIN = frozenset(DTYPES) - {"BOOL", "BF16"}


class Requests:
    """A message that matches a template is laid out as the one that the template was made of: the key holds what precedes
    the id and the length of what follows it; the head up to the first tensor, and what lies between tensors, is compared.

    longest: characters of an id."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._templates: dict[tuple[bytes, int], tuple[Any, ...]] = {}

    def match(self, raw: bytes) -> InferRequest | None:
        """None: it has to be taken apart."""
        try:
            at, post, request_id = _locate(raw)
            template = self._templates.get((raw[:at], len(raw) - post))
            if template is None:
                return None
            head, between, model, version, inputs, outputs = template
            if not raw.startswith(head, post):
                return None
            for offset, separator in between:
                if not raw.startswith(separator, post + offset):
                    return None
            identity = request_id.decode() if request_id else ""
        except (IndexError, UnicodeDecodeError):
            return None
        if not identity.isprintable() or len(identity) > self._longest:
            return None
        tensors = [
            Tensor(name, datatype, aligned(np.ndarray(shape, dtype, raw, post + offset)), {})
            for name, datatype, shape, dtype, offset in inputs
        ]
        return InferRequest(model, tensors, version, identity, {}, outputs)

    def learn(self, raw: bytes, request: InferRequest) -> None:
        """Makes a template of a message that was taken apart, where that can be done. Nobody may change request.outputs."""
        found = _layout(raw, request)
        if found is None:
            return
        at, post, tensors = found
        first = tensors[0][0]
        if first - post > MAX_HEAD:
            return
        between = [(end - post, raw[end:start]) for (_, end), (start, _) in zip(tensors, tensors[1:])]
        inputs = [
            (t.name, t.datatype, t.array.shape, t.array.dtype, start - post)
            for t, (start, _) in zip(request.inputs, tensors)
        ]
        if len(self._templates) >= MOST:
            self._templates.clear()
        self._templates[raw[:at], len(raw) - post] = (
            raw[post:first], between, request.model, request.version, inputs, request.outputs
        )  # fmt: skip


def _locate(raw: bytes) -> tuple[int, int, bytes]:
    """(where the id's field begins, where it ends, the id) of a message that begins with model name, version and id, all of
    less than 128 bytes. Raises IndexError for others, or gives what no template has."""
    at = 2 + raw[1] if raw[0] == _MODEL and raw[1] < 0x80 else len(raw)
    if raw[at] == _VERSION:
        at += 2 + raw[at + 1]
    if raw[at] != _ID:
        return at, at, b""
    size = raw[at + 1]
    if size >= 0x80:
        raise IndexError
    post = at + 2 + size
    return at, post, raw[at + 2 : post]


def _layout(raw: bytes, request: InferRequest) -> tuple[int, int, list[tuple[int, int]]] | None:
    """(where the id's field begins, ends, where each tensor begins and ends) if the message is made as writers of protobuf
    make it, with raw numbers alone and no parameters; None for others."""
    if request.parameters or any(t.parameters or t.datatype not in PLAIN or not t.array.size for t in request.inputs):
        return None
    try:
        at, post, _ = _locate(raw)
    except IndexError:
        return None
    tensors = []
    position, last = post, _INPUT
    for tag, start, end in wire.fields(raw, post):
        if tag not in (_INPUT, _OUTPUT, _RAW) or tag < last:
            return None
        position, last = end, tag
        if tag == _RAW:
            tensors.append((start, end))
    if position != len(raw) or not tensors or len(tensors) != len(request.inputs):
        return None
    # What is before the id is model name and version and nothing else.
    if [tag for tag, _, _ in wire.fields(raw[:at], 0)] not in ([_MODEL], [_MODEL, _VERSION]):
        return None
    return at, post, tensors


class Answers:
    """Heads of answers, by names, types and shapes."""

    def __init__(self) -> None:
        self._heads: dict[tuple[Any, ...], tuple[list[bytes], int]] = {}  # and the size of the whole message

    def key(
        self, response: InferResponse, wanted: list[RequestedOutput] | None, streamed: bool
    ) -> tuple[Any, ...] | None:
        """Of an answer whose outputs are numbers, wanted as they are and in this order; None of others."""
        outputs = response.outputs
        if response.parameters or not outputs:
            return None
        if wanted is not None:
            if len(wanted) != len(outputs):
                return None
            for asked, tensor in zip(wanted, outputs):
                if asked.name != tensor.name or asked.parameters:
                    return None
        key: list[Any] = [streamed, response.model, response.version]
        for tensor in outputs:
            array = tensor.array
            if tensor.datatype not in PLAIN or tensor.parameters or not array.flags.c_contiguous or not array.size:
                return None
            key += (tensor.name, tensor.datatype, array.shape, array.nbytes)
        return tuple(key)

    def write(self, key: tuple[Any, ...], response: InferResponse, streamed: bool) -> bytes | None:
        """The message; None when there is no template yet."""
        heads, size = self._heads.get(key, (None, 0))
        if heads is None:
            return None
        parts: list[Any] = []
        if response.id:
            parts.append(wire.identity(response.id))
            size += len(parts[0])
        if streamed:
            parts.insert(0, wire.before_response(size))
        for head, tensor in zip(heads, response.outputs):
            parts += (head, tensor.array)
        return b"".join(parts)

    def learn(self, key: tuple[Any, ...], head: bytes, response: InferResponse) -> None:
        """head: the response without its id and its tensors."""
        sizes = [tensor.array.nbytes for tensor in response.outputs]
        if len(head) > MAX_HEAD or sum(sizes) > wire.MAX_MESSAGE // 2:
            return
        heads = [wire.before_output(size) for size in sizes]
        heads[0] = head + heads[0]
        if len(self._heads) >= MOST:
            self._heads.clear()
        self._heads[key] = heads, sum(map(len, heads)) + sum(sizes)
