# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol over gRPC, in front of a Service."""

from fastinfer.serve.grpc.server import Connections, GrpcServer, Tls

__all__ = ["Connections", "GrpcServer", "Tls"]
