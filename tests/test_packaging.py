# SPDX-License-Identifier: Apache-2.0
"""What an installed wheel must hold."""

import fnmatch
import re
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


def test_both_native_modules_go_into_a_wheel_and_nothing_else_that_is_built():
    """_cuda brings the CUDA runtime with it (nothing of CUDA but the driver need be installed), and what it is made of is in the
    source distribution, which `pip install` of it builds from."""
    root = Path(__file__).parents[1]
    cmake = "\n".join(p.read_text() for p in (root / "CMakeLists.txt", *sorted((root / "cmake").glob("*.cmake"))))
    assert re.findall(r"\binstall\(([^)]*)\)", cmake) == [
        f"TARGETS {module} LIBRARY DESTINATION fastinfer" for module in ("_core", "_cuda")
    ]
    assert re.search(r"CUDA_RUNTIME_LIBRARY Static", cmake)
    included = (root / "pyproject.toml").read_text().partition("sdist.include = [")[2].partition("]")[0]
    for pattern in re.findall(r"\b((?:csrc|kernels)/[\w*/]+\.\w+)", cmake):
        assert f'"/{pattern.partition("/")[0]}"' in included, pattern


def test_clean_takes_what_a_build_leaves_beside_the_sources():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    assert all(f"src/fastinfer/{module}*.so" in makefile for module in ("_core", "_cuda"))
