#!/usr/bin/env bash
# Times whole requests against the local HealthImaging, and each of their stages.
#
#   scripts/bench.sh [DICOM [MODEL [RUNS]]]
#
# DICOM is a folder or zip with one series and MODEL a bundle; by default, the demo's phantom and network. Prints
# the median of RUNS (5) requests after one that is not counted, and the ratio of the whole request to the time
# inside the network, both from the same requests. Then it compares fetching and decoding with only fetching the
# same frames (benches/fetch.rs). Last come the network with each CPU provider in turn, four concurrent requests,
# loading, and memory (scripts/bench_network.py).

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

input=${1:-}
model=${2:-$ROOT/model/ct_phantom}
runs=${3:-5}
work=$ROOT/target/bench
binary=$ROOT/target/release/ahi-inference

cargo build --release --locked --quiet
fetch=$(bench_program fetch)
ORT_DYLIB_PATH=$(scripts/get-onnxruntime.sh)
export ORT_DYLIB_PATH
rm -rf "$work"
mkdir -p "$work"
if [ -z "$input" ]; then
    "$binary" phantom --out "$work/phantom" >/dev/null
    input=$work/phantom/dicom
fi
python3 scripts/bench.py "$binary" "$input" "$model" "$work" "$runs" "$fetch"
exec python3 scripts/bench_network.py "$binary" "$input" "$model" "$work" "$runs"
