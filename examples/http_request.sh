#!/usr/bin/env bash
# Classify one image file with curl alone, over Triton's HTTP API (KServe v2, binary extension).
#
#     examples/http_request.sh http://localhost:8000 digits-csg photo.jpg
#
# The encoded model takes the file as it is. `logits` is "score:index" of the most likely class, with the index counted in
# labels.txt of the model repository; `error` is empty, or says why the image can't be read.
set -euo pipefail
server=$1 model=$2 image=$3

size=$(stat --format=%s "$image")
header='{"inputs": [{"name": "encoded", "shape": [1, 1], "datatype": "BYTES",
                     "parameters": {"binary_data_size": '$((size + 4))'}}],
         "outputs": [{"name": "logits", "parameters": {"classification": 1}}, {"name": "error"}]}'
little_endian=$(printf '\\x%02x' $((size & 255)) $((size >> 8 & 255)) $((size >> 16 & 255)) $((size >> 24 & 255)))

{ printf '%s' "$header"; printf '%b' "$little_endian"; cat "$image"; } |
  curl --silent --show-error --fail-with-body --data-binary @- \
    --header "Inference-Header-Content-Length: ${#header}" --header "Content-Type: application/octet-stream" \
    "$server/v2/models/${model}_encoded/infer"
echo
