# SPDX-License-Identifier: Apache-2.0
"""``fastinfer models``: the repository that a server serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fastinfer.cli.output import Json, bytes_text, console, print_json, progress, table
from fastinfer.errors import InputError
from fastinfer.serve.errors import ServeError
from fastinfer.serve.repository import releases
from fastinfer.serve.repository.local import Local, Repository, resolved
from fastinfer.serve.repository.log import Live
from fastinfer.serve.repository.remote import Remote
from fastinfer.serve.repository.settings import parse
from fastinfer.serve.repository.signing import Signer, load_trust, new_key
from fastinfer.serve.repository.storage import Storage

models = typer.Typer(
    name="models",
    help="The models of a repository: versions, what is live, what was. Changes in a directory are taken up by its server on SIGHUP; those at a server's URL by it at once.",
    no_args_is_help=True,
)
Root = Annotated[
    str,
    typer.Argument(
        metavar="DIR", help="The repository: a directory, the URL of a server, or one of fsspec's (s3://...)."
    ),
]
Token = Annotated[
    Path | None, typer.Option("--token", help="File with the API key or bearer token for a server.", exists=True)
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model.")]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="A version, or an alias.")]
By = Annotated[
    str,
    typer.Option(
        "--by",
        help="Who does this, for a directory's log; default: this user and host. A server notes whose token it is.",
    ),
]


@contextmanager
def _asked() -> Iterator[None]:
    """What was asked wrongly is an input's error; what the machine refuses stays what it is."""
    try:
        yield
    except ServeError as e:
        if e.kind.status < 500:
            raise InputError(str(e)) from e
        raise


def _opened(root: str, token: Path | None) -> Repository:
    if root.startswith(("http://", "https://")):
        return Remote(root, token.read_text().strip() if token else "")
    if "://" in root:
        return Storage(root)
    if not Path(root).is_dir():
        there = "is no directory" if Path(root).exists() else "does not exist: make the directory first"
        raise InputError(f"the repository '{root}' {there}, or give a server's URL")
    return Local(Path(root))


@models.command("list")
def list_command(
    root: Root, name: Annotated[str, typer.Argument(help="One model.")] = "", token: Token = None, json: Json = False
) -> None:
    """Show models and versions, and which are live."""
    with _asked():
        found = _opened(root, token).listing(name)
    if json:
        print_json([vars(f) for f in found])
        return
    shown = table("model", ">version", "live", ">size", "signed")
    for f in found:
        shown.add_row(f.model, f.version, ", ".join(f.roles), bytes_text(f.bytes), "yes" if f.signed else "")
    console.print(shown)


@models.command()
def push(
    root: Root,
    name: Name,
    source: Annotated[Path, typer.Argument(help="A folder, an ONNX file or a saved program.", exists=True)],
    version: Annotated[str, typer.Option("--version", help="Default: one more than the highest there ever was.")] = "",
    key: Annotated[Path | None, typer.Option("--key", help="Sign with this private key (PEM).")] = None,
    settings: Annotated[Path | None, typer.Option("--settings", help="A model.toml for the model.")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="All requests go to it.")] = False,
    canary: Annotated[float | None, typer.Option("--canary", help="Per cent of the requests that go to it.")] = None,
    by: By = "",
    token: Token = None,
    json: Json = False,
) -> None:
    """Add a version; goes on where an earlier try stopped. A server loads it at once."""
    if promote and canary is not None:
        raise typer.BadParameter("--promote and --canary exclude each other")
    with _asked():
        text = settings.read_bytes() if settings else b""
        parse(text)
        at, signer = _opened(root, token), Signer(key) if key else None
        with progress(f"pushing {source.name}", json) as report:
            made = at.push(name, source, version=version, signer=signer, settings=text, by=by, report=report)
        _take_up(at, name, made.version, promote, canary, by)
    if json:
        print_json({"model": name, "version": made.version, "bytes": made.size, "sha256": made.digest})
    else:
        console.print(f"{name} version {made.version}: {bytes_text(made.size)}, manifest sha256 {made.digest[:16]}…")


def _take_up(at: Repository, name: str, version: str, promote: bool, canary: float | None, by: str) -> None:
    if isinstance(at, Remote) and not (canary is not None and any(v.roles for v in at.listing(name))):
        at.load(name)  # a canary beside a version that is live is loaded as one: nothing else may reach it
    if promote:
        at.change(name, "promote", version, by=by)
    elif canary is not None:
        at.change(name, "canary", version, percent=canary, by=by)


@models.command()
def pull(
    root: Root,
    name: Name,
    target: Annotated[Path, typer.Option("--output", "-o", help="A folder that does not exist yet.")],
    version: Annotated[str, typer.Argument(help="A version or an alias; default: the stable or the highest.")] = "",
    token: Token = None,
) -> None:
    """Copy a version to a folder, checked against its manifest."""
    with _asked():
        chosen, files = _opened(root, token).pull(name, version, target)
    console.print(f"{name} version {chosen}: {files} files in {target}", highlight=False, markup=False)


@models.command()
def promote(
    root: Root,
    name: Name,
    version: Version,
    canary: Annotated[float | None, typer.Option("--canary", help="Only this per cent of the requests.")] = None,
    shadow: Annotated[float | None, typer.Option("--shadow", help="Copies of this per cent; 0 ends it.")] = None,
    alias: Annotated[str, typer.Option("--alias", help="Only this alias.")] = "",
    by: By = "",
    token: Token = None,
) -> None:
    """Make a version the one that all requests go to; or try it out; or give it an alias."""
    if sum((canary is not None, shadow is not None, bool(alias))) > 1:
        raise typer.BadParameter("--canary, --shadow and --alias exclude each other")
    action = "canary" if canary is not None else "shadow" if shadow is not None else "alias" if alias else "promote"
    with _asked():
        at = _opened(root, token)
        chosen = resolved(at, name, version)
        live = at.change(name, action, chosen, percent=canary or shadow or 0, alias=alias, by=by)
    _show(name, live)


@models.command()
def rollback(root: Root, name: Name, by: By = "", token: Token = None) -> None:
    """End what is tried out; or go back to the version that was stable before."""
    with _asked():
        live = _opened(root, token).rollback(name, by=by)
    _show(name, live)


@models.command()
def remove(
    root: Root,
    name: Name,
    version: Version,
    force: Annotated[bool, typer.Option("--force", help="Even when it is live.")] = False,
    by: By = "",
    token: Token = None,
) -> None:
    """Take a version away."""
    with _asked():
        _opened(root, token).remove(name, version, force=force, by=by)
    console.print(f"{name} version {version} is removed")


@models.command()
def log(
    root: Root,
    name: Annotated[str, typer.Argument(help="One model.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Fail if a line was changed.")] = False,
    token: Token = None,
    json: Json = False,
) -> None:
    """What was live when, and by whom."""
    with _asked():
        entries = _opened(root, token).log(name, check=check)
    if json:
        print_json([vars(e) | {"live": e.live.as_json() if e.live else None} for e in entries])
        return
    shown = table("when", "who", "model", "what", ">version", "live then", "note")
    for e in entries:
        shown.add_row(e.at, e.by, e.model, e.action, e.version, _words(e.live) if e.live else "", e.note[:40])
    console.print(shown, markup=False)


@models.command()
def mirror(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="A repository of fsspec's: s3://, gs://, sftp://, file://...")
    ],
    root: Annotated[Path, typer.Argument(metavar="DIR", help="The directory that a server serves.", file_okay=False)],
    latest: Annotated[int, typer.Option(min=0, help="Only so many versions of each model; 0: all.")] = 0,
    trusted: Annotated[
        Path | None, typer.Option("--trusted-keys", help="Take only what one of these keys signed.")
    ] = None,
    json: Json = False,
) -> None:
    """Bring versions that a directory lacks, checked; what is live stays. A server takes them up on SIGHUP."""
    if "://" not in url:
        raise typer.BadParameter(f"{url!r} is no URL")
    with _asked(), progress("mirroring", json) as report:
        root.mkdir(parents=True, exist_ok=True)
        brought = Storage(url).mirror(
            root, latest=latest, trust=load_trust(trusted) if trusted else None, report=report
        )
    if json:
        print_json(brought)
    else:
        console.print(", ".join(brought) or "nothing new")


@models.command()
def keygen(path: Annotated[Path, typer.Argument(help="Where the private key goes (mode 600).")]) -> None:
    """Make a key to sign with; prints its public half for the server's file of trusted keys."""
    with _asked():
        print(new_key(path))


def _words(live: Live) -> str:
    named = {v: releases.roles(live, v) for v in sorted(live.versions, key=int)}
    return "; ".join(f"{v}: {', '.join(words)}" for v, words in named.items())


def _show(name: str, live: Live) -> None:
    console.print(f"{name}: {_words(live)}", markup=False)
