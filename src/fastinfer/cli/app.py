# SPDX-License-Identifier: Apache-2.0
"""All commands, and what their exit codes mean (docs/cli.md)."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

import fastinfer
from fastinfer.cli import MISSING_PACKAGE
from fastinfer.cli.apikey import apikey
from fastinfer.cli.bench import bench
from fastinfer.cli.compile import compile_command
from fastinfer.cli.doctor import doctor
from fastinfer.cli.explain import explain
from fastinfer.cli.models import models
from fastinfer.cli.output import Differ, Unhealthy, errors
from fastinfer.cli.profile import profile
from fastinfer.cli.run import run_command
from fastinfer.cli.serve import serve
from fastinfer.errors import FastinferError, InputError, ModelError, UnsupportedError

OK, BUG, USAGE, MODEL, UNSUPPORTED, INPUT, DIFFER, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130
# First match counts: UnsupportedError is a ModelError.
EXIT_CODES = [(UnsupportedError, UNSUPPORTED), (ModelError, MODEL), (InputError, INPUT), (Differ, DIFFER)]

# typer brings its own copy of click in newer versions; this is the class in either.
UsageError: Any = typer.BadParameter.__bases__[0]


def _version(asked: bool) -> None:
    if asked:
        print(f"fastinfer {fastinfer.__version__}")
        raise typer.Exit()


app = typer.Typer(
    name="fastinfer",
    help="Compile, run and measure torch and ONNX models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog=(
        "Exit codes: 0 done, 1 an unexpected error, 2 wrong usage, 3 the model is wrong, 4 the model is not supported as "
        "asked, 5 an input is wrong, 6 outputs disagree, 7 a package is missing, 130 interrupted."
    ),
)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


app.command("compile")(compile_command)
app.command("run")(run_command)
app.command("bench")(bench)
app.command("explain")(explain)
app.command("profile")(profile)
app.command("doctor")(doctor)
app.command("serve")(serve)
app.add_typer(models)
app.command("apikey")(apikey)


def run(arguments: list[str] | None = None) -> int:
    """Runs one command line; returns the exit code. Expected errors are one line on stderr, or JSON under --json."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        result = typer.main.get_command(app).main(args=given, prog_name="fastinfer", standalone_mode=False)
        return result if isinstance(result, int) else OK
    except UsageError as error:
        if "--json" in given:
            return _fail(given, error.format_message(), USAGE)
        error.show()
        return USAGE
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return OK
    except Unhealthy:
        return BUG
    except ModuleNotFoundError as error:
        return _fail(given, f"the package {error.name} is missing: pip install {error.name}", MISSING_PACKAGE)
    except FastinferError as error:
        code = next((code for kind, code in EXIT_CODES if isinstance(error, kind)), BUG)
        return _fail(given, str(error), code)
    except OSError as error:  # an output that cannot be written
        return _fail(given, str(error), BUG)


def _fail(given: list[str], message: str, code: int) -> int:
    if "--json" in given:
        print(json.dumps({"error": message, "exit_code": code}))
    else:
        errors.print(f"[bold red]error:[/] {rich_escape(message)}", highlight=False)
    return code


def rich_escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
