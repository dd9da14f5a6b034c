# SPDX-License-Identifier: Apache-2.0
"""The command `fastinfer`."""

from __future__ import annotations

import sys

MISSING_PACKAGE = 7


def main() -> None:
    """Entry of the console script and of ``python -m fastinfer``."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        print(f"the command line needs {error.name}: pip install 'fastinfer[cli]'", file=sys.stderr)
        sys.exit(MISSING_PACKAGE)
    from fastinfer.cli.app import run

    sys.exit(run())
