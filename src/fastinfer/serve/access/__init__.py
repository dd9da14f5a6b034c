# SPDX-License-Identifier: Apache-2.0
"""Who may do what: API keys, bearer tokens, scopes per model, rates. Knows neither HTTP nor gRPC."""

from fastinfer.serve.access.caller import ANYONE, SCOPES, Caller
from fastinfer.serve.access.gate import Gate

__all__ = ["ANYONE", "SCOPES", "Caller", "Gate"]
