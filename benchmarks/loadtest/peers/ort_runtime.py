# SPDX-License-Identifier: Apache-2.0
"""An ONNX model in ONNX Runtime behind MLServer, as its documentation has custom runtimes. Imported by MLServer alone."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OrtModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.settings.parameters.extra["threads"]
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, options, ["CPUExecutionProvider"])
        self.names = [o.name for o in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {i.name: NumpyCodec.decode_input(i) for i in payload.inputs}
        results = self.session.run(None, feeds)
        outputs = [NumpyCodec.encode_output(n, r) for n, r in zip(self.names, results)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
