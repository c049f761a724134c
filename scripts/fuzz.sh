#!/usr/bin/env bash
# Fuzzes every reader of untrusted bytes: fuzz.sh [SECONDS] [TARGET...]
#
# Each target (`src/fuzzing.rs`) runs for SECONDS, 60 by default, FUZZ_JOBS (2) of them at a time, with limits on
# memory and on the time for a single input. The inputs found so far are kept in fuzz/corpus. Ends with a table,
# and exits with 1 if anything was found. Findings are in fuzz/artifacts/TARGET and, once fixed, belong in
# fuzz/regressions/TARGET, whose files the tests run.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

seconds=${1:-60}
[[ $seconds =~ ^[0-9]+$ ]] || die "usage: fuzz.sh [SECONDS] [TARGET...]"
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(sed -n 's/.*Target { name: "\([a-z0-9_]*\)".*/\1/p' src/fuzzing.rs)
fi

# Sanitizers are not part of stable Rust, but the compiler of this version supports them nevertheless.
export RUSTC_BOOTSTRAP=1
if ! cargo fuzz --version >/dev/null 2>&1; then
    [ -x target/tools/bin/cargo-fuzz ] || cargo install --locked --root target/tools cargo-fuzz
    export PATH=$ROOT/target/tools/bin:$PATH
fi
say "building"
cargo fuzz build --target-dir fuzz/target
host=$(rustc -vV | sed -n 's/^host: //p')
built=$ROOT/fuzz/target/$host/release
made=$ROOT/fuzz/target/seeds
rm -rf "$made"
python3 scripts/fuzz-seeds.py "$made" "${AHI_SHARED:-$ROOT/../shared}" >&2
logs=$ROOT/fuzz/target/logs
mkdir -p "$logs"

# The largest input of a target, in bytes.
largest() {
    case $1 in
        codec_*) echo 16384 ;;
        bundle_expression) echo 2048 ;;
        bundle_config) echo 32768 ;;
        *) echo 65536 ;;
    esac
}

# run TARGET: fuzzes it for its time and records how it ended.
run() {
    local target=$1 folders=() folder status=0
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    for folder in "$made/$target" "fuzz/seeds/$target" "fuzz/regressions/$target"; do
        [ -d "$folder" ] && folders+=("$folder")
    done
    # A failed allocation is an error to handle, not a reason to stop.
    ASAN_OPTIONS=allocator_may_return_null=1:detect_odr_violation=0 \
        "$built/$target" "fuzz/corpus/$target" "${folders[@]}" \
        -max_total_time="$seconds" -max_len="$(largest "$target")" -timeout=10 \
        -rss_limit_mb=2048 -malloc_limit_mb=1024 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="fuzz/artifacts/$target/" >"$logs/$target.log" 2>&1 || status=$?
    echo $status >"$logs/$target.status"
}

say "fuzzing ${#targets[@]} targets for $seconds s each"
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "${FUZZ_JOBS:-2}" ]; do wait -n || true; done
    run "$target" &
done
wait

# stat TARGET NAME: a final figure of libFuzzer.
stat() { sed -n "s/^stat::$2: *//p" "$logs/$1.log" | tail -n 1; }

found=0
printf '\n%-18s %12s %8s %9s %8s %10s\n' target executions per-s peak-MiB slowest findings
for target in "${targets[@]}"; do
    findings=0
    [ "$(cat "$logs/$target.status")" -eq 0 ] || findings=1
    found=$((found + findings))
    printf '%-18s %12s %8s %9s %7ss %10s\n' "$target" "$(stat "$target" number_of_executed_units)" \
        "$(stat "$target" average_exec_per_sec)" "$(stat "$target" peak_rss_mb)" \
        "$(stat "$target" slowest_unit_time_sec)" "$findings"
    if [ $findings -ne 0 ]; then
        grep -aE '^(==[0-9]+==|SUMMARY|Test unit written|thread .* panicked)' "$logs/$target.log" | tail -n 4 | cut -c1-200
    fi
done
[ $found -eq 0 ] || die "$found targets have findings: see fuzz/artifacts and fuzz/target/logs"
