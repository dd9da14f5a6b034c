# SPDX-License-Identifier: Apache-2.0
"""One server process with models of every kind, for the reference clients. Asyncio clients share one loop."""

import asyncio

import pytest
from clients import KINDS, Client
from small_models import accumulate, heavy, put, scale
from typed_models import TYPES, identity
from whole import serving


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    put(root, "double", 1, scale(2), 'owner = "me"\n[limits]\ntimeout = 60.0\n[batching]\nmax_batch = 8\n')
    put(root, "double", 2, scale(3))
    put(root, "sum", 1, accumulate(), '[sequence]\nstate = {held = "next"}\n')
    put(root, "slow", 1, heavy(), "threads = 1\n[batching]\nmax_batch = 1\n")
    for name, code in TYPES.items():
        put(root, f"same-{name.lower()}", 1, identity(code))
    return root


@pytest.fixture(scope="session")
def whole(models):
    with serving(models, "--shared-memory", "--allow-files") as server:
        yield server


@pytest.fixture(scope="session")
def loop():
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture(params=KINDS)
def client(request, whole, loop):
    made = Client(request.param, whole.grpc if request.param.startswith("grpc") else whole.http, loop)
    yield made
    made.close()
