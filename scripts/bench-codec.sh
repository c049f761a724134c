#!/usr/bin/env bash
# HTJ2K decoders compared frame by frame, in one run on one core.
#
#   scripts/bench-codec.sh [ROUNDS]
#
# This project's decoder with each instruction set that the processor has, openjph-core, openjp2, and OpenJPH (C++,
# from imagecodecs' wheel) take turns for ROUNDS (15) rounds. Frames are those of ../shared (AHI_SHARED) if they
# are there, and a phantom's. Prints medians, the ratio of each to OpenJPH's, and megabytes of pixels per second.
# Fails if two decoders return different pixels.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

python=$(scripts/setup-python.sh)
ORT_DYLIB_PATH=$(scripts/get-onnxruntime.sh)
export ORT_DYLIB_PATH
cargo build --release --locked --quiet
helper=$(bench_program codec)
[ -x "$helper" ] || die "the bench target codec was not built"
exec "$python" scripts/bench-codec.py "$helper" target/release/ahi-inference "${AHI_SHARED:-$ROOT/../shared}" "${1:-15}"
