# SPDX-License-Identifier: Apache-2.0
"""A repository with one model, "double"; servers run as processes (process.py)."""

import pytest
from small_models import put, scale


@pytest.fixture
def root(tmp_path):
    put(tmp_path / "models", "double", 1, scale(2.0))
    return tmp_path / "models"
