# SPDX-License-Identifier: Apache-2.0
"""What the wires call: everything the protocol can ask, in terms of messages. No HTTP, no protobuf, no files in here."""

from __future__ import annotations

from typing import Any, Protocol

from fastinfer.serve.messages import InferRequest, InferResponse

NAME = "fastinfer"
EXTENSIONS = (
    "binary_tensor_data", "classification", "model_configuration", "model_repository",
    "model_repository(unload_dependents)", "statistics", "sequence", "system_shared_memory",
)  # fmt: skip


class Service(Protocol):
    """Every method raises ServeError. All run on the server's event loop; none blocks it (files and compilation go to
    threads). model: a name or an alias; version: "" for the one that the policy chooses."""

    async def infer(self, request: InferRequest) -> InferResponse: ...

    def admit(self, model: str, version: str = "") -> None:
        """Raises ServeError (UNAVAILABLE) when `infer` would refuse any request of this model now, as too many wait; for
        wires to ask before they decode one. Says nothing of models that there are not."""
        ...

    def live(self) -> bool: ...

    def ready(self) -> bool:
        """Every model that shall be loaded is, and the server is not draining."""
        ...

    def model_ready(self, model: str, version: str = "") -> bool: ...

    def server_metadata(self) -> dict[str, Any]:
        """{"name", "version", "extensions"}"""
        ...

    def model_metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """{"name", "versions", "platform", "inputs": [{"name", "datatype", "shape"}], "outputs"}; -1: a free extent."""
        ...

    def model_config(self, model: str, version: str = "") -> dict[str, Any]:
        """Triton's ModelConfig as its JSON has it (snake_case): name, platform, backend, version_policy, max_batch_size,
        input and output [{"name", "data_type": "TYPE_FP32", "dims"}] (dims without the batch where max_batch_size > 0),
        dynamic_batching, instance_group ..."""
        ...

    async def statistics(self, model: str = "", version: str = "") -> list[dict[str, Any]]:
        """A ModelStatistics per loaded version (of all models if model is empty), as the statistics extension has it;
        of all processes of the server together."""
        ...

    async def repository_index(self, ready: bool = False) -> list[dict[str, Any]]:
        """[{"name", "version", "state", "reason"}]; state: UNKNOWN, READY, UNAVAILABLE, LOADING, UNLOADING."""
        ...

    async def load(self, model: str, parameters: dict[str, Any]) -> None: ...

    async def unload(self, model: str, parameters: dict[str, Any]) -> None: ...
