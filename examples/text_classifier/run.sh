#!/usr/bin/env bash
# Train, compile, push, serve, ask; then a second version: a fifth of the requests, all of them, and back again.
# Everything is written to the current directory. PORT: of the server. PYTHON: an interpreter with fastinfer and torch.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python3}
URL=http://127.0.0.1:${PORT:-8000}
export OMP_WAIT_POLICY=passive # torch's threads leave the cores to others while they wait
step() { printf '\n== %s\n' "$1"; }

step "train two versions with torch, compile each into one file"
"$PYTHON" "$here/train.py"

step "push the first version, and send all requests to it"
mkdir -p repository
fastinfer models push repository text v1.safetensors --settings "$here/model.toml" --promote

step "serve"
fastinfer serve repository --http-port "${PORT:-8000}" --no-grpc --allow-files &
server=$!
trap 'kill $server; wait $server || true' EXIT
curl -sf -w '\n' --retry 60 --retry-delay 1 --retry-connrefused "$URL/v2/health/ready"

step "ask with curl: JSON in, JSON out"
"$PYTHON" "$here/data.py" 'with open(path) as f: return [line.strip() for line in f]' > question.json
curl -sS -w '\n' --fail-with-body "$URL/predict/text" --json @question.json
curl -sS -w '\n' --fail-with-body "$URL/v2/models/text"

step "send all test passages (binary tensors), compare with torch"
"$PYTHON" "$here/ask.py" "$URL"

step "push the second version to the running server as a canary: it takes 20 % of the requests"
fastinfer models push "$URL" text v2.safetensors --canary 20
"$PYTHON" "$here/ask.py" "$URL"

step "it does well: promote it"
fastinfer models promote "$URL" text 2
"$PYTHON" "$here/ask.py" "$URL"

step "roll back"
fastinfer models rollback "$URL" text
"$PYTHON" "$here/ask.py" "$URL"

step "what was live when"
fastinfer models log repository text --check
