# SPDX-License-Identifier: Apache-2.0
"""Makes a virtual environment and installs extras of this project into it: bootstrap.py VENV EXTRA[,EXTRA].

Needs python3 with pip and nothing else: where Debian's python3 has no ensurepip (package python3-venv), the system's
pip fills the environment. What is missing is said with the package that brings it. Doing it again is cheap: a stamp
holds a hash of pyproject.toml and the extras.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# cmake and ninja come from PyPI when the system has none; the build backend is installed, so no build is isolated.
BUILD = ["scikit-build-core>=0.10", "pybind11>=2.13"]
# Pinned before anything else asks for torch: an unpinned torch brings gigabytes of CUDA packages.
TORCH = "torch==2.13.0"


def stop(message: str) -> None:
    sys.exit(f"bootstrap: {message}")


def check_tools() -> None:
    if sys.version_info < (3, 10):  # noqa: UP036 - the interpreter at hand may be older than the package allows
        stop(
            f"Python 3.10 or newer is needed, this is {sys.version.split()[0]} ({sys.executable}); try PYTHON=python3.11"
        )
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        stop("no C++ compiler: apt-get install g++ (a C++20 compiler, GCC 11 or clang 14 at least)")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        stop(f"{header} is missing: apt-get install python3-dev")


def make_venv(venv: Path) -> Path:
    python = venv / "bin" / "python"
    if python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return python
    if importlib.util.find_spec("venv") is None:
        stop("this python3 has no module venv: apt-get install python3-venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--clear", venv], check=True)
    if importlib.util.find_spec("ensurepip") is not None:
        if subprocess.run([python, "-m", "ensurepip"], capture_output=True).returncode == 0:
            return python
    if importlib.util.find_spec("pip") is None:
        stop("this python3 has neither ensurepip nor pip: apt-get install python3-venv")
    site = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", site.strip(), "pip"], check=True)
    return python


def install(python: Path, extras: str) -> None:
    def pip(*args: str) -> None:
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *args], check=True)

    tools = [name for name in ("cmake", "ninja") if shutil.which(name) is None]
    pip(*BUILD, *tools)
    if "test" in extras.split(",") or "torch" in extras.split(","):
        pip(TORCH)
    pip("--no-build-isolation", "-e", f"{ROOT}[{extras}]" if extras else str(ROOT))


def main() -> None:
    if len(sys.argv) not in (2, 3):
        stop("usage: bootstrap.py VENV [EXTRA,EXTRA]")
    venv, extras = Path(sys.argv[1]).absolute(), (sys.argv[2] if len(sys.argv) == 3 else "")
    check_tools()
    content = (ROOT / "pyproject.toml").read_bytes() + extras.encode()
    stamp = venv / f".fastinfer-{extras.replace(',', '-')}"
    digest = hashlib.sha256(content).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"bootstrap: installing into {venv} ({extras or 'core'})", flush=True)
    try:
        install(make_venv(venv), extras)
    except subprocess.CalledProcessError as error:
        stop(f"failed, its message stands above: {' '.join(map(str, error.cmd))}")
    stamp.write_text(digest)


if __name__ == "__main__":
    main()
