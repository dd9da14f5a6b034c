# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: a port or a socket, its limits, health, reflection, and its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from fastinfer.errors import InputError
from fastinfer.serve.access import Gate
from fastinfer.serve.grpc import schema
from fastinfer.serve.grpc.access import HEALTH, Door
from fastinfer.serve.grpc.health import Health
from fastinfer.serve.grpc.servicer import Servicer
from fastinfer.serve.grpc.wire import MAX_MESSAGE
from fastinfer.serve.messages import Limits
from fastinfer.serve.service import Service
from fastinfer.serve.settings import Settings
from fastinfer.serve.shm import Regions


@dataclass(frozen=True, slots=True)
class Connections:
    """What connections may do. Times in seconds.

    calls: at once, of all connections; streams: of one. in_flight: requests of one ModelStreamInfer at once. metadata:
    bytes of a call's. held: bytes that the messages of all requests under way may have together. ping: how often a client may send pings; after two that come sooner it is sent away. idle: after
    which a silent client is asked whether it is still there, and has `answer` to say so; handshake: for TLS and
    HTTP/2's preface.
    """

    calls: int = 4096
    streams: int = 1024
    in_flight: int = 64
    metadata: int = 16 << 10
    held: int = 1 << 30
    ping: float = 10.0
    idle: float = 60.0
    answer: float = 20.0
    handshake: float = 10.0


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM. client_ca: then clients have to show a certificate that it signed."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], self.client_ca, require_client_auth=self.client_ca is not None
        )


class GrpcServer:
    """regions: shared memory, None to refuse it. gate: who may call what, None for everyone. responded: is told
    the code of every answer. One start() and one stop()."""

    def __init__(
        self,
        service: Service,
        *,
        limits: Limits | None = None,
        connections: Connections | None = None,
        regions: Regions | None = None,
        gate: Gate | None = None,
        settings: Settings | None = None,
        responded: Callable[[str], None] = lambda code: None,
    ) -> None:
        self._responded = responded
        self._service = service
        self._limits = limits or Limits()
        self._connections = connections or Connections()
        self._regions = regions
        self._gate = gate
        self._settings = settings or Settings()
        self._server: grpc.aio.Server | None = None

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        socket: str | None = None,
        tls: Tls | None = None,
        reuse_port: bool = False,
    ) -> int:
        """Listens on host and port (0: any free one), or on a Unix socket; gives the port. reuse_port: several processes
        share it. Raises InputError when that cannot be."""
        c = self._connections
        self._servicer = Servicer(
            self._service, self._limits, self._regions, self._gate, c.in_flight, c.held, self._settings, self._responded
        )
        self._health = Health(self._service.ready)
        server = grpc.aio.server(
            interceptors=[Door(self._gate, self._responded)] if self._gate is not None else None,
            options=self._options(reuse_port),
            maximum_concurrent_rpcs=c.calls,
        )
        server.add_generic_rpc_handlers((self._servicer, self._health))
        _add_reflection(server)
        address = f"unix:{socket}" if socket else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
        except (RuntimeError, ValueError):
            raise InputError(
                f"gRPC cannot listen on {address}: it is taken, or no address of this machine, or the certificate is none"
            ) from None
        await server.start()
        self._server = server
        return bound

    def _options(self, reuse_port: bool) -> list[tuple[str, int]]:
        c = self._connections
        return [
            # 4 MiB by default: one batch of images is more.
            ("grpc.max_receive_message_length", self._limits.body),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            # Between the two limits gRPC refuses at random.
            ("grpc.max_metadata_size", c.metadata),
            ("grpc.absolute_max_metadata_size", c.metadata),
            ("grpc.max_concurrent_streams", c.streams),
            ("grpc.http2.min_ping_interval_without_data_ms", int(c.ping * 1000)),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.keepalive_time_ms", int(c.idle * 1000)),
            ("grpc.keepalive_timeout_ms", int(c.answer * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.server_handshake_timeout_ms", int(c.handshake * 1000)),
            ("grpc.so_reuseport", int(reuse_port)),  # on by default: a second server would take half of the calls
        ]

    def changed(self) -> None:
        """To be called when the service's readiness may have changed: tells those who watch it."""
        if self._server is not None:
            self._health.changed()

    async def stop(self, grace: float) -> None:
        """Takes no more calls; those under way have `grace` seconds, streams are answered what they asked so far."""
        if self._server is None:
            return
        self._health.stop()
        self._servicer.streams.drain()
        server, self._server = self._server, None
        await server.stop(grace)


def _add_reflection(server: grpc.aio.Server) -> None:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema.FILE_PROTO)
    for module in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    reflection.enable_server_reflection((schema.SERVICE, HEALTH, reflection.SERVICE_NAME), server, pool)
