# SPDX-License-Identifier: Apache-2.0
"""Several server processes behind one port: the supervisor starts and replaces them, and what changes one changes all."""

from fastinfer.serve.workers.link import Link, LinkClosed
from fastinfer.serve.workers.shared import SharedService
from fastinfer.serve.workers.supervisor import Supervisor

__all__ = ["Link", "LinkClosed", "SharedService", "Supervisor"]
