#!/usr/bin/env bash
# Breaks transfers from a local HealthImaging and S3 in every way, and prints what a server answers meanwhile.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

python=$(scripts/setup-python.sh)
ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$(scripts/get-onnxruntime.sh)}
export ORT_DYLIB_PATH
[ -n "${AHI_INFERENCE_BIN:-}" ] || cargo build --release --locked >&2
exec "$python" scripts/faults.py "$@"
