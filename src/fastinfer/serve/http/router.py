# SPDX-License-Identifier: Apache-2.0
"""Paths to routes: a tree of dicts over the path's segments, and a bounded memory of paths that were found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from fastinfer.serve.errors import Kind, ServeError

REMEMBERED = 1024


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    parameter: str = ""  # what a segment stands for that is no literal
    other: _Node | None = None  # for segments that are no literals
    methods: dict[str, Any] | None = None  # of a path that ends here


class Router:
    """Routes are (method, pattern, handler); a pattern's segment is a literal or one of {model}, {version}, {region}.
    name: characters that a parameter may have."""

    def __init__(self, routes: list[tuple[str, str, Any]], name: int) -> None:
        self._root = _Node()
        self._name = name
        self._known: dict[bytes, tuple[dict[str, Any], tuple[str, ...]]] = {}
        for method, pattern, handler in routes:
            node = self._root
            for segment in pattern.split("/")[1:]:
                if segment.startswith("{"):
                    node.other = node.other or _Node(parameter=segment[1:-1])
                    node = node.other
                else:
                    node = node.children.setdefault(segment, _Node())
            node.methods = {**(node.methods or {}), method: handler}

    def find(self, path: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The methods of a raw (percent-encoded) path, and its parameters in order. Raises ServeError."""
        found = self._known.get(path)
        if found is None:
            segments = [_decoded(s) for s in path.split(b"/")[1:]]
            arguments: list[tuple[str, str]] = []
            methods = _walk(self._root, segments, 0, arguments) if path.startswith(b"/") else None
            if methods is None:
                raise ServeError(
                    Kind.NOT_FOUND, "there is nothing under this path; GET /openapi.json lists what there is"
                )
            found = methods, tuple(_checked(kind, value, self._name) for kind, value in arguments)
            if len(self._known) >= REMEMBERED:  # someone tries names: what is used comes back at once
                self._known.clear()
            self._known[path] = found
        return found


def _walk(node: _Node, segments: list[str], at: int, arguments: list[tuple[str, str]]) -> dict[str, Any] | None:
    if at == len(segments):
        return node.methods
    child = node.children.get(segments[at])
    if child is not None and (found := _walk(child, segments, at + 1, arguments)) is not None:
        return found
    child = node.other
    if child is None or not segments[at]:
        return None
    arguments.append((child.parameter, segments[at]))
    found = _walk(child, segments, at + 1, arguments)
    if found is None:
        arguments.pop()
    return found


def _decoded(segment: bytes) -> str:
    """Decoded once: a name with "%2F" has a slash in it, which no name may have, and is no two segments."""
    try:
        return (unquote_to_bytes(segment) if b"%" in segment else segment).decode()
    except UnicodeDecodeError:
        raise ServeError(Kind.INVALID_ARGUMENT, "the path is not UTF-8 once it is decoded") from None


def _checked(kind: str, value: str, most: int) -> str:
    if kind == "version":
        if not (value.isascii() and value.isdigit() and value[0] != "0" and len(value) < 20):
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"version {value[:32]!r}; needed: a positive integer without leading zeros"
            )
    elif len(value) > most:
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"a {kind} name of {len(value)} characters; at most {most} are possible"
        )
    elif "/" in value or "\\" in value or ".." in value or value == "." or not value.isprintable():
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"the {kind} name {value[:64]!r} holds '/', '\\', '..' or control characters"
        )
    return value
