# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fastinfer.cli import MISSING_PACKAGE


def serve(
    repository: Annotated[Path, typer.Argument(help="Directory of models: NAME/VERSION/model.onnx, NAME.onnx, ...")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Port of HTTP; 0 for any free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC; 0 for any free one.")] = 8001,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="HTTP alone.")] = False,
    model: Annotated[list[str] | None, typer.Option(help="Serve this model only (may be repeated).")] = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that share the ports; each has all models, and model.toml says on how many cores."
        ),
    ] = 1,
    cache: Annotated[Path | None, typer.Option(help="Folder for compiled programs, for quick starts.")] = None,
    keys: Annotated[list[Path] | None, typer.Option(help="TOML file of API keys (may be repeated).")] = None,
    issuer: Annotated[str, typer.Option(help="Issuer of bearer tokens (OpenID Connect).")] = "",
    audience: Annotated[str, typer.Option(help="Audience that tokens must name.")] = "",
    jwks: Annotated[Path | None, typer.Option(help="The issuer's keys, a JWKS file.")] = None,
    public: Annotated[
        list[str] | None, typer.Option(help="Scope of callers without credentials: infer, read, admin, metrics.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate chain (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    client_ca: Annotated[Path | None, typer.Option(help="Clients need certificates of this authority (PEM).")] = None,
    trusted_keys: Annotated[
        Path | None, typer.Option(help="TOML file of keys; versions need a signature by one of them.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine without any access rules.")
    ] = False,
    shared_memory: Annotated[bool, typer.Option("--shared-memory", help="Allow regions of /dev/shm.")] = False,
    allow_files: Annotated[
        bool, typer.Option("--allow-files", help="Models may come over HTTP: `models push`, load requests with files.")
    ] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="No page at /ui.")] = False,
    max_body: Annotated[int, typer.Option(help="MiB that a request may have, again once decompressed.")] = 128,
    spin: Annotated[
        float, typer.Option(help="Microseconds awake after an answer, where requests come that close.")
    ] = 200.0,
    max_connections: Annotated[int, typer.Option(help="HTTP connections at a time, per worker.")] = 8192,
    upload_quota: Annotated[float, typer.Option(help="GiB of all models that are just being pushed over HTTP.")] = 64.0,
    drain: Annotated[float, typer.Option(help="Seconds between not ready and taking no more connections.")] = 0.0,
    grace: Annotated[float, typer.Option(help="Seconds that requests under way then have.")] = 30.0,
    log_style: Annotated[str, typer.Option("--log", help="text or json, to standard error.")] = "text",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve models over HTTP and gRPC (Open Inference Protocol).

    SIGTERM or SIGINT ends it in order: it is not ready at once, goes on for --drain seconds, and answers what is under way
    within --grace seconds. A second one ends it at once. SIGHUP reads keys, models and settings again.

    Exit codes: 0 it was told to end, 1 its workers crashed again and again, 2 wrong usage, 5 an option, a file or a port that
    cannot be, 7 a package is missing, 130 or 143 it was told twice.
    """
    try:
        from fastinfer.serve.config import Config
        from fastinfer.serve.main import main
        from fastinfer.serve.messages import Limits
    except ModuleNotFoundError as error:
        print(f"serving needs {error.name}: pip install 'fastinfer[serve]'", file=sys.stderr)
        raise typer.Exit(MISSING_PACKAGE) from None
    if log_style not in ("text", "json"):
        raise typer.BadParameter(f"{log_style!r} is neither text nor json", param_hint="--log")
    if log_level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"{log_level!r} is none of debug, info, warning, error", param_hint="--log-level")
    config = Config(
        repository=repository, models=model, host=host, http_port=http_port, grpc_port=None if no_grpc else grpc_port,
        workers=workers, cache=cache, keys=keys or (), issuer=issuer, audience=audience, jwks=jwks, public=public or (),
        certificate=certificate, key=key, client_ca=client_ca, insecure=insecure, shared_memory=shared_memory,
        allow_files=allow_files, page=not no_page, drain=drain, grace=grace, trusted=trusted_keys,
        limits=Limits(body=max_body << 20), connections=max_connections, spin=spin * 1e-6, upload_quota=int(upload_quota * (1 << 30)),
    )  # fmt: skip
    main(config, log_style, log_level)
