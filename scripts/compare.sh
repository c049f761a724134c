#!/usr/bin/env bash
# This program compared with what it replaces, in one run: MONAI's transforms and inferer, AHItoDICOMInterface,
# highdicom.
#
#   scripts/compare.sh [--quick]
#
# Prints every stage of both on the same images with the same network, and the ratios. The network and the cranium
# come from the reference material in ../shared (AHI_SHARED). Without it, the demo's network and the phantom are
# used.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

python=$(scripts/setup-compare.sh)
cargo build --release --locked --quiet
FETCH_BENCH=$(bench_program fetch)
export FETCH_BENCH
ORT_DYLIB_PATH=$(scripts/get-onnxruntime.sh)
export ORT_DYLIB_PATH
exec "$python" scripts/compare.py "$@"
