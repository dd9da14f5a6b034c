# SPDX-License-Identifier: Apache-2.0
"""The server: the Open Inference Protocol over HTTP and gRPC in front of compiled models.

Layers, imports one way: ``http``, ``grpc`` (the wire) → ``service`` → ``registry`` → ``endpoint`` (one loaded version) →
``fastinfer.Batcher``; ``messages``, ``datatypes`` and ``errors`` are what all of them speak.
"""
