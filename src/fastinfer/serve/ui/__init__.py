# SPDX-License-Identifier: Apache-2.0
"""The page at /ui: static files, no build step, nothing from elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
# Nothing from other hosts, no inline scripts or styles, no markup made of text (trusted types), no frames around it: a
# model's name cannot become code.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)


@dataclass(frozen=True)
class File:
    body: bytes
    content_type: str
    etag: str


def files() -> dict[str, File]:
    """The page's files by name; "" is the page itself."""
    found = {}
    for path in sorted((Path(__file__).parent / "static").iterdir()):
        body = path.read_bytes()
        found[path.name] = File(body, _TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return {**found, "": found["index.html"]}
