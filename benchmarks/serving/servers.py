# SPDX-License-Identifier: Apache-2.0
"""Each server started as its users start it, on loopback, until the block is left."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port: int, path: str, process: subprocess.Popen, seconds: float = 90) -> None:
    """Until a GET answers 200. Raises RuntimeError when the process ends or the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {' '.join(map(str, process.args))}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"no answer from {path} within {seconds:g} s: {' '.join(map(str, process.args))}")


@contextlib.contextmanager
def _running(command: list[str], log: Path, **options) -> Iterator[subprocess.Popen]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


@contextlib.contextmanager
def fastinfer(models: dict[str, Path], folder: Path, threads: int, batch: int) -> Iterator[int]:
    """Ours, with the models of a repository that is made in `folder`. Yields the HTTP port."""
    for name, path in models.items():
        version = folder / "repository" / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, version / f"model{path.suffix}")
        (version.parent / "model.toml").write_text(f"threads = {threads}\n[batching]\nmax_batch = {batch}\n")
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "fastinfer",
        "serve",
        str(folder / "repository"),
        "--http-port",
        str(port),
        "--no-grpc",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with _running(command, folder / "fastinfer.log", env=environment) as process:
        wait_for(port, "/v2/health/ready", process)
        yield port


@contextlib.contextmanager
def mlserver(models: dict[str, Path], folder: Path, threads: int, batch: int) -> Iterator[int]:
    """MLServer 1.7.1 from the environment $MLSERVER, inference in its own process."""
    port = free_port()
    for name, path in models.items():
        (folder / "mlserver" / name).mkdir(parents=True, exist_ok=True)
        parameters = {"uri": str(path.resolve()), "extra": {"threads": threads}}
        settings = {"name": name, "implementation": "ort_runtime.OrtModel", "parameters": parameters}
        if batch > 1:
            settings |= {"max_batch_size": batch, "max_batch_time": 0.002}
        (folder / "mlserver" / name / "model-settings.json").write_text(json.dumps(settings))
    general = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port(),
               "parallel_workers": 0, "debug": False, "logging_settings": None}  # fmt: skip
    (folder / "mlserver" / "settings.json").write_text(json.dumps(general))
    program = Path(os.environ["MLSERVER"]) / "bin" / "mlserver"
    environment = {**os.environ, "PYTHONPATH": str(HERE / "peers")}
    with _running(
        [str(program), "start", "."], folder / "mlserver.log", env=environment, cwd=folder / "mlserver"
    ) as process:
        wait_for(port, "/v2/health/ready", process)
        yield port


@contextlib.contextmanager
def litserve(models: dict[str, Path], folder: Path, threads: int, batch: int) -> Iterator[int]:
    """LitServe 0.2.19 from the environment $LITSERVE; it serves one model."""
    (path,) = models.values()
    port = free_port()
    command = [str(Path(os.environ["LITSERVE"]) / "bin" / "python"), str(HERE / "peers" / "lit_app.py"), str(path.resolve()), str(port),
               str(threads), str(batch)]  # fmt: skip
    with _running(command, folder / "litserve.log") as process:
        wait_for(port, "/health", process)
        yield port
