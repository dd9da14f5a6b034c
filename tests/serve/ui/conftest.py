# SPDX-License-Identifier: Apache-2.0
"""Real servers over small repositories, and a browser."""

from __future__ import annotations

import pytest
from browser import MISSING, Browser
from shown_models import fill, write_keys
from small_models import put, scale
from small_server import Running

from fastinfer.serve.config import Config


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    fill(root)
    return root


@pytest.fixture(scope="session")
def server(repository):
    running = Running(Config(repository, http_port=0, grpc_port=None, grace=2))
    yield running
    running.close()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory):
    """A server with keys."""
    root = tmp_path_factory.mktemp("guarded")
    put(root, "double", 1, scale(2), 'versions = "all"\n')
    put(root, "double", 2, scale(3))
    put(root, "other", 1, scale(5))
    keys = root.parent / "keys.toml"
    write_keys(keys)
    running = Running(Config(root, http_port=0, grpc_port=None, keys=[keys], grace=2))
    yield running
    running.close()


@pytest.fixture
def make_server():
    """Servers of one test; each may be closed earlier."""
    made = []

    def make(config):
        made.append(Running(config))
        return made[-1]

    yield make
    for running in made:
        if not running.loop.is_closed():
            running.close()


@pytest.fixture(scope="session")
def one_browser():
    if MISSING:
        pytest.skip(MISSING)
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(one_browser):
    """With nothing left over from another test; fails the test for any console message."""
    one_browser.open("about:blank")
    one_browser.window(1280, 900)
    one_browser.console()
    one_browser.urls()
    one_browser.expected = []
    yield one_browser
    left = [m for m in one_browser.console() if not any(e in m for e in one_browser.expected)]
    assert left == []
