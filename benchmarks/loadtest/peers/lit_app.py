# SPDX-License-Identifier: Apache-2.0
"""An ONNX model in ONNX Runtime behind LitServe, with its batching. Texts of different lengths are padded to the longest of
the batch, with a mask, as its users do. Run by LitServe's own environment: lit_app.py MODEL PORT THREADS BATCH."""

import sys

import litserve
import numpy as np
import onnxruntime


class OrtApi(litserve.LitAPI):
    def __init__(self, path: str, threads: int, **options) -> None:
        super().__init__(**options)
        self.path, self.threads = path, threads

    def setup(self, device) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.session = onnxruntime.InferenceSession(self.path, options, ["CPUExecutionProvider"])
        self.types = {i.name: np.int64 if "int64" in i.type else np.float32 for i in self.session.get_inputs()}

    def decode_request(self, request):
        return {n: np.asarray(request[n], t) for n, t in self.types.items()}

    def batch(self, inputs):
        longest = max(a.shape[-1] for feed in inputs for a in feed.values())
        pad = lambda a: np.pad(a, ((0, 0), (0, longest - a.shape[-1])))  # noqa: E731
        return {n: np.concatenate([pad(feed[n]) for feed in inputs]) for n in self.types}

    def predict(self, feeds):
        return self.session.run(None, feeds)[0]

    def unbatch(self, output):
        return [output[i : i + 1] for i in range(len(output))]

    def encode_response(self, output):
        return {"output": output.tolist()}


if __name__ == "__main__":
    path, port, threads, batch = sys.argv[1], *map(int, sys.argv[2:])
    options = {"max_batch_size": batch, "batch_timeout": 0.002} if batch > 1 else {}
    server = litserve.LitServer(OrtApi(path, threads, **options), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")
