#!/usr/bin/env bash
# Train, export, push, serve, ask; then a second version: a fifth of the requests, all of them, and back again.
# Everything is written to the current directory. PORT: of the server. PYTHON: an interpreter with fastinfer and torch.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python3}
URL=http://127.0.0.1:${PORT:-8000}
export OMP_WAIT_POLICY=passive # torch's threads leave the cores to others while they wait
step() { printf '\n== %s\n' "$1"; }

step "train with torch, export two states to ONNX"
"$PYTHON" "$here/train.py"

step "push the first version, and send all requests to it"
mkdir -p repository
fastinfer models push repository shapes v1.onnx --settings "$here/model.toml" --promote

step "serve, keeping compiled programs for the next start"
fastinfer serve repository --http-port "${PORT:-8000}" --no-grpc --allow-files --cache cache &
server=$!
trap 'kill $server; wait $server || true' EXIT
curl -sf -w '\n' --retry 60 --retry-delay 1 --retry-connrefused "$URL/v2/health/ready"

step "ask with curl: one image as raw bytes, scores as JSON"
"$PYTHON" -c 'import numpy; numpy.load("test.npz")["inputs"][0].tofile("image.raw")'
curl -sS -w '\n' --fail-with-body "$URL/v2/models/shapes"
head='{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 3, 32, 32], "parameters": {"binary_data_size": 12288}}]}'
printf '%s' "$head" | cat - image.raw >request.bin
curl -sS -w '\n' --fail-with-body "$URL/v2/models/shapes/infer" --data-binary @request.bin \
  -H "Content-Type: application/octet-stream" -H "Inference-Header-Content-Length: ${#head}"

step "send all test images, compare with torch"
"$PYTHON" "$here/ask.py" "$URL"

step "push the second version to the running server as a canary: it takes 20 % of the requests"
fastinfer models push "$URL" shapes v2.onnx --canary 20
"$PYTHON" "$here/ask.py" "$URL"

step "it does well: promote it"
fastinfer models promote "$URL" shapes 2
"$PYTHON" "$here/ask.py" "$URL"

step "roll back"
fastinfer models rollback "$URL" shapes
"$PYTHON" "$here/ask.py" "$URL"

step "what was live when"
fastinfer models log repository shapes --check
