# SPDX-License-Identifier: Apache-2.0
"""Servers, requests and the load generator of `python benchmarks/serving.py`. Loopback only; every loop is bounded."""
