# SPDX-License-Identifier: Apache-2.0
"""Slow tests run when asked for (``-m slow``)."""

import pytest


def pytest_collection_modifyitems(config, items):
    if "slow" not in config.getoption("-m"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))
