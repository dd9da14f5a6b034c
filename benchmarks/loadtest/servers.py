# SPDX-License-Identifier: Apache-2.0
"""Each server started as its users start it, on loopback, until the block is left; all but the one that is measured are
stopped (SIGSTOP), so that nothing that they do in their idle time costs it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@dataclass
class Running:
    """A server with all its processes (one process group)."""

    port: int
    grpc_port: int = 0
    process: subprocess.Popen | None = None

    def pause(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGCONT)


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
def started(command: list[str], log: Path, **options) -> Iterator[subprocess.Popen]:
    """A process in a group of its own; the group is ended when the block is left."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def fastinfer(model: Path, name: str, folder: Path, threads: int, batch: int) -> Iterator[Running]:
    """Ours, with a repository of this one model."""
    version = folder / "repository" / name / "1"
    version.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, version / f"model{model.suffix}")
    (version.parent / "model.toml").write_text(f"threads = {threads}\n[batching]\nmax_batch = {batch}\n")
    port, grpc_port = free_port(), free_port()
    command = [sys.executable, "-m", "fastinfer", "serve", str(folder / "repository")]
    command += ["--http-port", str(port), "--grpc-port", str(grpc_port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with started(command, folder / "log", env=environment) as process:
        wait_for(port, "/v2/health/ready", process)
        yield Running(port, grpc_port, process)


@contextlib.contextmanager
def mlserver(model: Path, name: str, folder: Path, threads: int, batch: int) -> Iterator[Running]:
    """MLServer 1.7.1 from the environment $MLSERVER. Inference in the server's own process: a worker process, its default,
    costs more. batch: for its adaptive batching; 1 for none."""
    port = free_port()
    (folder / name).mkdir(parents=True, exist_ok=True)
    parameters = {"uri": str(model.resolve()), "extra": {"threads": threads}}
    settings = {"name": name, "implementation": "ort_runtime.OrtModel", "parameters": parameters}
    if batch > 1:
        settings |= {"max_batch_size": batch, "max_batch_time": 0.002}
    (folder / name / "model-settings.json").write_text(json.dumps(settings))
    general = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port(),
               "parallel_workers": 0, "debug": False, "logging_settings": None}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(general))
    program = Path(os.environ["MLSERVER"]) / "bin" / "mlserver"
    environment = {**os.environ, "PYTHONPATH": str(HERE / "peers")}
    with started([str(program), "start", "."], folder / "log", env=environment, cwd=folder) as process:
        wait_for(port, "/v2/health/ready", process)
        yield Running(port, 0, process)


@contextlib.contextmanager
def litserve(model: Path, name: str, folder: Path, threads: int, batch: int) -> Iterator[Running]:
    """LitServe 0.2.19 from the environment $LITSERVE. batch: for its batching; 1 for none."""
    port = free_port()
    program = str(Path(os.environ["LITSERVE"]) / "bin" / "python")
    command = [program, str(HERE / "peers" / "lit_app.py"), str(model.resolve()), str(port), str(threads), str(batch)]
    with started(command, folder / "log") as process:
        wait_for(port, "/health", process)
        yield Running(port, 0, process)


@contextlib.contextmanager
def bare_grpc(model: Path, name: str, folder: Path, threads: int, batch: int, answer: bytes) -> Iterator[Running]:
    """grpc.aio with a handler that always gives back `answer`."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "answer").write_bytes(answer)
    command = [sys.executable, str(HERE / "bare_grpc.py"), str(port)]
    with (folder / "answer").open("rb") as given, started(command, folder / "log", stdin=given) as process:
        _wait_for_port(port, process)
        yield Running(port, port, process)


@contextlib.contextmanager
def plain_grpc(model: Path, name: str, folder: Path, threads: int, batch: int) -> Iterator[Running]:
    """grpc.aio with a handler that parses, runs the model in process, and answers."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(HERE / "plain_grpc.py"), str(port), str(model), str(threads)]
    with started(command, folder / "log", env={**os.environ, "PYTHONPATH": str(ROOT / "src")}) as process:
        _wait_for_port(port, process)
        yield Running(port, port, process)


def _wait_for_port(port: int, process: subprocess.Popen, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
