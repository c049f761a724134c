#!/usr/bin/env bash
# Published bundles with random, seeded weights: through MONAI on PyTorch, and through this program with the
# network that model/export_monai_bundle.py exports, on the same DICOM files. Prints a table.
#
#   scripts/published-bundles.sh [--bundles FOLDER] [--work FOLDER] [BUNDLE...]
#
# Bundles are those in ../shared/bundles (AHI_SHARED), or in the given folder: a checkout of the model zoo's
# `models`, for bundles with network code of their own. Installs PyTorch and MONAI into target/compare-venv.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

python=$(scripts/setup-compare.sh)
if [ -z "${AHI_INFERENCE_BIN:-}" ]; then
    cargo build --release --locked --quiet
    export AHI_INFERENCE_BIN=$ROOT/target/release/ahi-inference
fi
ORT_DYLIB_PATH=$(scripts/get-onnxruntime.sh)
export ORT_DYLIB_PATH
exec "$python" scripts/published_bundles.py "$@"
