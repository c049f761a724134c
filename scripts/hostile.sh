#!/usr/bin/env bash
# Sends hostile inputs to fresh servers with 4 GiB of memory, and prints the outcome of each.
#
#   scripts/hostile.sh [--only TEXT] [--limit cgroup|space]

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

python=$(scripts/setup-python.sh)
ORT_DYLIB_PATH=$(scripts/get-onnxruntime.sh)
export ORT_DYLIB_PATH
cargo build --release --locked
exec "$python" scripts/hostile.py "$@"
