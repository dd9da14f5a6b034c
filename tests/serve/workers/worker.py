# SPDX-License-Identifier: Apache-2.0
"""A worker for the tests of the supervisor: does what it is asked, and dies when it is told to."""

import asyncio
import os
import signal
import socket
import sys

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.workers import Link


async def main(number: int, fd: int, mode: str) -> None:
    end = asyncio.Event()
    state = {"number": number, "loaded": []}

    async def handler(operation, arguments):
        if operation == "load":
            if arguments["model"] == "bad":
                raise ServeError(Kind.INVALID_ARGUMENT, "the model is bad")
            state["loaded"].append(arguments["model"])
            return None
        if operation == "unload":
            state["loaded"].remove(arguments["model"])
            return None
        if operation == "state":
            return {**state, "pid": os.getpid()}
        if operation == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("a bug")

    link = await Link.over(socket.socket(fileno=fd), handler)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    if mode == "hopeless":
        sys.exit(3)
    for change in await link.ask("changes"):
        await handler(change["operation"], change["arguments"])
    await link.ask("ready")
    done = [asyncio.ensure_future(e.wait()) for e in (end, link.closed)]
    await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
    await link.close()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
