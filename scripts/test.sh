#!/usr/bin/env bash
# Builds and runs every test: formatting, lints, Rust tests, Python tests. The last line gives the counts.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

python=$(scripts/setup-python.sh)
ORT_DYLIB_PATH=$(scripts/get-onnxruntime.sh)
export ORT_DYLIB_PATH
export AHI_INFERENCE_BIN=$ROOT/target/release/ahi-inference

logs=$ROOT/target/test-logs
rm -rf "$logs"
mkdir -p "$logs"
passed=0
failed=0

# count NAME: adds up the tests that the log of a step reports; fails if there are none.
count() {
    local log=$logs/$1.log ok bad
    # "12 passed" and "3 failed" as cargo test, nextest and pytest write them in their summaries.
    local summaries='^test result:|^ *Summary \[|^=.* in [0-9.]+s'
    ok=$(grep -E "$summaries" "$log" | grep -oE '[0-9]+ passed' | awk '{n += $1} END {print n + 0}')
    bad=$(grep -E "$summaries" "$log" | grep -oE '[0-9]+ (failed|errors?|timed out)' | awk '{n += $1} END {print n + 0}')
    passed=$((passed + ok))
    failed=$((failed + bad))
    [ $((ok + bad)) -gt 0 ]
}

# step NAME COMMAND...: runs a step and keeps its log. A step whose log reports tests counts as that many tests,
# any other as one.
step() {
    local name=$1 status=0 before=$failed
    shift
    say "$name: $*"
    "$@" 2>&1 | tee "$logs/$name.log" || status=$?
    if ! count "$name"; then
        if [ $status -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    elif [ $status -ne 0 ] && [ "$failed" -eq "$before" ]; then
        # The tests passed, but the step did not.
        failed=$((failed + 1))
    fi
    return $status
}

finish() {
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" -eq 0 ]
}

export CARGO_TERM_COLOR=never
step build cargo build --release --locked || { finish; exit 1; }
step format cargo fmt --check || true
step lint cargo clippy --release --locked --all-targets -- -D warnings || true
if cargo nextest --version >/dev/null 2>&1; then
    step rust cargo nextest run --release --locked --no-fail-fast || true
    step doc cargo test --release --locked --doc || true
else
    step rust cargo test --release --locked --no-fail-fast || true
fi
step python "$python" -m pytest --color=no -p no:cacheprovider tests/python || true
finish
