# SPDX-License-Identifier: Apache-2.0
"""Structured logs: one JSON object a line, in which nothing that a client sent can begin a new line or colour a terminal."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

LOGGER = "fastinfer.serve"
# What LogRecord has by itself; all else was given as `extra`.
_OWN = set(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
MAX_FIELD = 1024  # characters


class JsonFormatter(logging.Formatter):
    """{"time", "level", "logger", "message", **extra}. json.dumps escapes control characters, ESC among them."""

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[: 8 * MAX_FIELD],
        }
        row.update((k, _bounded(v)) for k, v in vars(record).items() if k not in _OWN)
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row, default=str)


class TextFormatter(logging.Formatter):
    """For a terminal: the same fields in words, control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        extra = " ".join(f"{k}={_bounded(v)}" for k, v in vars(record).items() if k not in _OWN)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower():<7} {record.getMessage()[: 8 * MAX_FIELD]} {extra}".rstrip()
        line = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _bounded(value: Any) -> Any:
    return value[:MAX_FIELD] if isinstance(value, str) else value


def configure(style: str, level: str = "info") -> None:
    """style: "json" or "text"; to standard error. Only our own loggers and uvicorn's are touched."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    for name in (LOGGER, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
