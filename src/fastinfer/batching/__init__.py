# SPDX-License-Identifier: Apache-2.0
"""Many requests in one call: packed, as real batches, or one by one; and the queue in front of a model."""

from fastinfer.batching.batcher import Batcher
from fastinfer.batching.dispatcher import Closed
from fastinfer.batching.queue import DeadlineExceeded, QueueFull

__all__ = ["Batcher", "Closed", "DeadlineExceeded", "QueueFull"]
