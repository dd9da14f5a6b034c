# SPDX-License-Identifier: Apache-2.0
"""The server against MLServer and LitServe: `python -m benchmarks.serving --help`. Loopback only; every loop is bounded."""
