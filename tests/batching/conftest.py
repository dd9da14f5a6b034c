# SPDX-License-Identifier: Apache-2.0
import pytest
from small_encoder import compiled


@pytest.fixture(scope="module")
def model():
    return compiled()
