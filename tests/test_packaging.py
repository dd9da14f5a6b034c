# SPDX-License-Identifier: Apache-2.0
"""What an installed wheel must hold."""

import fnmatch
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_nothing_takes_the_native_module_out_of_a_wheel():
    """scikit-build-core's wheel.exclude is for what CMake installs as well: with *.so in it `pip install .` gave a package
    that could not be imported."""
    import tomllib

    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["scikit-build"]
    for pattern in settings["wheel"].get("exclude", []):
        assert not fnmatch.fnmatch("_core.cpython-311-x86_64-linux-gnu.so", pattern.rpartition("/")[2])
    assert "*.so" in settings["sdist"]["exclude"]  # and a development build's module stays out of both
