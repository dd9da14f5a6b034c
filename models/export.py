# SPDX-License-Identifier: Apache-2.0
"""torch module → ONNX file by torch's own exporter; made once, kept in the cache."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter's progress and warnings are of no use to a reader of test or benchmark output."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def export(module: Any, example: tuple | dict, path: Path, dynamic_shapes: Any = None, **options: Any) -> Path:
    """Writes `path` if it is not there. A dict is passed as keyword arguments, which name the inputs."""
    if path.exists():
        return path
    import torch

    print(f"exporting {path.name}", file=sys.stderr, flush=True)
    kwargs = example if isinstance(example, dict) else None
    args = () if isinstance(example, dict) else example
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(), args, kwargs=kwargs, dynamo=True, dynamic_shapes=dynamic_shapes, verbose=False, **options
        )
        partial = path.with_name(f"{path.stem}.{os.getpid()}.part.onnx")
        program.save(str(partial), external_data=False)
    partial.rename(path)
    return path
