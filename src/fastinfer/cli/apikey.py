# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fastinfer.errors import InputError


def apikey(
    file: Annotated[Path, typer.Argument(help="The server's file of keys (`serve --keys`); made if it is not there.")],
    name: Annotated[str, typer.Argument(help="Who the key is for, as the log shows it.")],
    scope: Annotated[list[str], typer.Option(help="infer, read, admin or metrics (may be repeated).")],
    model: Annotated[list[str] | None, typer.Option(help="Only models like this one: ocr-* (may be repeated).")] = None,
    rate: Annotated[float, typer.Option(help="Requests per second; 0: any number.")] = 0.0,
    expires: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The first day it is void.")] = None,
) -> None:
    """Make an API key: prints it once, and adds its digest to the file. A server reads the file again on SIGHUP."""
    from fastinfer.serve.access.keys import KeyFile, new_key

    key, digest = new_key()
    row = {"name": name, "sha256": digest, "scopes": scope, "models": model or ["*"]} | ({"rate": rate} if rate else {})
    lines = ["[[key]]", *(f"{k} = {json.dumps(v)}" for k, v in row.items())]
    if expires is not None:
        lines.append(f"expires = {expires:%Y-%m-%d}")
    old = file.read_text().rstrip("\n") + "\n\n" if file.exists() else ""
    part = file.with_name(f".{file.name}.{digest[:16]}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(old + "\n".join(lines) + "\n")
        try:
            KeyFile(part)  # a file that a server would refuse does not take the place of one that it takes
        except InputError as e:
            raise InputError(str(e).replace(str(part), str(file))) from None
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    print(key)
