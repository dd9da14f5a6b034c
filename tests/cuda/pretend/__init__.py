# SPDX-License-Identifier: Apache-2.0
"""A device that is not there: ``cuda:0`` with its tensors in host memory and its kernels interpreted.

What runs on it goes through the code that a GPU will run (FASTINFER_CUDA=device: streams, events, graphs, pinned copies), and
is refused where a device would refuse it: host and device tensors in one operator, a read without a wait, a synchronisation
during a capture, types that CUDA has no kernel for. Work is late: nothing runs before some host call waits for it, and streams
without an event between them run in random order, so that a missing wait reads memory nobody has written yet (0xFF: NaN).
Memory that is given back is overwritten at the moment when the allocator could hand it out again.

    python -m pytest -p pretend.plugin tests/cuda/test_device.py      (PYTHONPATH=src:tests/cuda)

  work.py        streams, events and graphs as lists of closures, and the order in which they run
  memory.py      allocations: poisoned, guarded at both ends, bounded
  tensors.py     the tensor that says cuda:0, and what its operators do
  refusals.py    operators and types that a device does not take
  launches.py    Triton's and our own kernels, put on a stream
  torch_cuda.py  torch.cuda over all this
"""
