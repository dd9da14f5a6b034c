# SPDX-License-Identifier: Apache-2.0
import pytest
from http_server import Running


@pytest.fixture(scope="session")
def server():
    with Running() as running:
        yield running
