# SPDX-License-Identifier: Apache-2.0
"""Many requests in one call: packed, as real batches, or one by one; and the queue in front of a model."""

from fastinfer.batching.many import Many

__all__ = ["Batcher", "DeadlineExceeded", "Many", "QueueFull"]
