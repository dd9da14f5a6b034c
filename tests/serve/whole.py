# SPDX-License-Identifier: Apache-2.0
"""A whole server, as its users start it: a process of the command on free ports of 127.0.0.1, and its log as it comes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Whole:
    """http, grpc: "127.0.0.1:PORT". records: of the log so far. preexec: run in the new process first; prefix: a command that
    runs ours."""

    def __init__(self, repository, *options, preexec=None, prefix=(), **environment):
        self.records, self.http, self.grpc = [], "", ""
        self._more = threading.Condition()
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "fastinfer", "serve", str(repository), "--http-port=0", "--grpc-port=0",
             "--log=json", *map(str, options)],
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SOURCE), **environment}, preexec_fn=preexec,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            try:
                record = json.loads(line)
            except ValueError:
                record = {"message": line.decode("utf-8", "replace").rstrip(), "raw": True}
            with self._more:
                self.records.append(record)
                self._more.notify_all()
        with self._more:
            self.records.append({"message": "", "eof": True})
            self._more.notify_all()

    def until(self, condition, seconds=60):
        """The first record of the log for which condition(record) holds."""
        found = []

        def look():
            found[:] = [r for r in self.records if condition(r)][:1]
            return found or (self.records and self.records[-1].get("eof"))

        with self._more:
            self._more.wait_for(look, seconds)
            assert found, f"not in the log: {self.text()}"
        return found[0]

    def text(self):
        return "\n".join(json.dumps(r) for r in self.records)

    @property
    def port(self):
        return int(self.http.rpartition(":")[2])

    def ready(self):
        record = self.until(lambda r: r["message"] == "listening")
        self.http, self.grpc = f"127.0.0.1:{record['http']}", f"127.0.0.1:{record['grpc']}"
        self.until(lambda r: r["message"] in ("ready", "some models could not be loaded"))
        return self

    def close(self):
        """The exit code; the server had 20 seconds to end."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.wait()
            self._reader.join(5)
            self.process.stderr.close()


@contextlib.contextmanager
def serving(repository, *options, **kw):
    whole = Whole(repository, *options, **kw)
    try:
        yield whole.ready()
    finally:
        whole.close()
