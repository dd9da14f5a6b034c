# SPDX-License-Identifier: Apache-2.0
"""Servers for the tests of a module."""

import pytest
from grpc_server import Running

from fastinfer.serve.shm import Regions


@pytest.fixture(scope="module")
def serving():
    """serving(**options of GrpcServer) → Running; all are closed when the module is done."""
    opened = []

    def serve(**options):
        opened.append(Running(**options).open())
        return opened[-1]

    yield serve
    for running in opened:
        running.close()


@pytest.fixture(scope="module")
def server(serving):
    return serving(regions=Regions())
