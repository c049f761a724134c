#!/usr/bin/env bash
# Times whole requests against the local HealthImaging, and each of their stages.
#
#   scripts/bench.sh [DICOM [MODEL [RUNS]]]
#
# DICOM is a folder or zip of one series and MODEL a bundle: the demo's phantom and network where not
# given. Prints the median of RUNS (5) requests after one that is not counted, and the whole request
# over the time inside the network alone, both from the same requests; then fetching and decoding beside
# fetching the same frames alone (benches/fetch.rs). Last, the network by each provider of a CPU in turn, four
# requests at once, loading, and memory (scripts/bench_network.py).

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
