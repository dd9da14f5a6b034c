# SPDX-License-Identifier: Apache-2.0
"""A server process whose doors are locked: keys of every kind, nothing public."""

import pytest
from doors import write_keys
from small_models import accumulate, echo, put, scale
from whole import serving


@pytest.fixture(scope="session")
def locked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("locked")
    root = folder / "models"
    put(root, "double", 1, scale(2))
    put(root, "double", 2, scale(3))
    put(root, "words", 1, echo())
    put(root, "double-secret", 1, scale(7))
    put(root, "double-sum", 1, accumulate(), '[sequence]\nstate = {held = "next"}\n')
    keys = write_keys(folder / "keys.toml")
    with serving(root, "--keys", keys, "--shared-memory", "--allow-files") as server:
        server.folder = folder
        yield server


@pytest.fixture(scope="session")
def unlocked(tmp_path_factory):
    """On loopback, without keys, as on a developer's machine."""
    root = tmp_path_factory.mktemp("models")
    put(root, "double", 1, scale(2))
    with serving(root) as server:
        yield server
