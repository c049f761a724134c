#!/usr/bin/env bash
# The whole path on one machine, without AWS: creates a synthetic CT, imports it into the emulator of AWS
# HealthImaging, serves a network for it, requests a segmentation over HTTP, saves a picture of it, and compares it
# with the truth. Everything it creates is in target/demo.
#
#   scripts/demo.sh [--keep]
#
# --keep leaves the emulator and the server running until Ctrl-C. AHI_INFERENCE_BIN names a program that is already
# built.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

keep=
case ${1-} in
    --keep) keep=1 ;;
    '') ;;
    *) die "unknown option $1; usage: $0 [--keep]" ;;
esac

demo=$ROOT/target/demo
binary=${AHI_INFERENCE_BIN:-$ROOT/target/release/ahi-inference}
# Minutes that a first build takes on one core.
BUILD_MINUTES=14
pids=()

stop() {
    local pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
}
trap stop EXIT

# logged NAME COMMAND...: runs a command with much output, which is shown if the command fails.
logged() {
    local log=$ROOT/target/demo-$1.log
    shift
    mkdir -p "$ROOT/target"
    "$@" 2>"$log" || {
        tail -n 40 "$log" >&2
        die "$1 failed; all of its messages are in $log"
    }
}

# The build, with a counter instead of a line for each crate.
build() {
    cargo build --release --locked 2>&1 | tee /dev/stderr |
        awk -v terminal="$([ -t 1 ] && echo 1)" '
            terminal && /^ *Compiling/ { printf "\r%d crates compiled", ++crates; fflush() }
            END { if (crates) print "" }'
}

# background NAME COMMAND...: starts a command that `stop` ends; its output goes to NAME.log.
background() {
    local log=$demo/$1.log
    shift
    : >"$log"
    "$@" >>"$log" 2>&1 &
    pids+=($!)
}

# Whether the command started last is still running; if not, shows its log and gives up.
running() {
    kill -0 "${pids[-1]}" 2>/dev/null && return
    tail -n 40 "$demo/$1.log" >&2
    die "the $1 did not start"
}

emulator_answers() {
    running emulator
    endpoint=$(grep -oE 'HealthImaging: listening on http://[^ "]+' "$demo/emulator.log" | grep -oE 'http://.*') && [ -n "$endpoint" ]
}

server_answers() {
    running server
    curl --silent --fail --output /dev/null --max-time 2 "$server/ping"
}

# ask FILE: sends one request and writes its answer to FILE.
ask() {
    local status
    status=$(curl --silent --show-error --max-time 300 --output "$1" --write-out '%{http_code}' \
        --header 'Content-Type: application/json' --data "@$demo/request.json" "$server/invocations")
    [ "$status" = 200 ] || die "the server answered $status: $(head -c 2000 "$1")"
}

cores=$(nproc)
if [ -n "${AHI_INFERENCE_BIN:-}" ]; then
    say "taking $binary"
elif [ -x "$binary" ]; then
    say "building what has changed"
else
    say "installing and building: about $(((BUILD_MINUTES + cores - 1) / cores + 1)) minutes on $cores cores, once"
fi
python=$(logged setup scripts/setup-python.sh --demo)
ORT_DYLIB_PATH=$(logged onnxruntime scripts/get-onnxruntime.sh)
export ORT_DYLIB_PATH
UI_ASSETS=$(logged viewer scripts/get-viewer.sh)
export UI_ASSETS
[ -n "${AHI_INFERENCE_BIN:-}" ] || logged build build
unset AHI_INFERENCE_BIN # no setting of the program, which refuses unknown ones

say "making a synthetic CT and importing it into the emulated HealthImaging"
rm -rf "$demo"
mkdir -p "$demo"
logged phantom "$binary" phantom --out "$demo/phantom" >"$demo/phantom.log"
logged import "$binary" import "$demo/phantom/dicom" --folder "$demo/store" >"$demo/import.json"
"$python" - "$demo/import.json" >"$demo/request.json" <<'PYTHON'
import json, sys
made = json.load(open(sys.argv[1]))
print(json.dumps({"inputs": [
    {"datastoreId": made["datastoreId"], "imageSetId": image_set["imageSetId"]} for image_set in made["imageSets"]
], "outputs": ["dicom-seg", "preview"]}))
PYTHON

say "starting the emulator and the server"
background emulator "$binary" emulate --folder "$demo/store" --port 0 --s3-port 0
wait_until 20 emulator_answers || die "the emulator does not answer; see $demo/emulator.log"
echo "  emulator at $endpoint"

# The emulator needs no real credentials, but the SDK needs some to sign with.
export AHI_ENDPOINT_URL=$endpoint
export AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo AWS_REGION=us-east-1
server=http://127.0.0.1:$(free_port)
# The page is refused if there are signs of SageMaker.
background server env -u SAGEMAKER_BIND_TO_PORT "$binary" serve --ui --host 127.0.0.1 --model "$ROOT/model/ct_phantom" --port "${server##*:}"
wait_until 60 server_answers || die "the server does not answer; see $demo/server.log"
echo "  server at $server, with a page at $server/ui/ as long as it runs"

say "asking for a segmentation: $(cat "$demo/request.json")"
ask "$demo/answer.json"
"$python" scripts/answer.py "$demo/answer.json" "$demo"

say "comparing it with the truth"
"$python" scripts/dice.py "$demo"/*.seg.dcm "$demo/phantom" --least 0.9

say "done: a picture of three planes with the segments outlined is $(echo "$demo"/*.preview.png)"
if [ -n "$keep" ]; then
    say "emulator and server go on until Ctrl-C. The page is at $server/ui/. To ask again:"
    echo "  curl -s $server/invocations -H 'Content-Type: application/json' -d @$demo/request.json"
    trap 'exit 0' INT TERM
    wait -n "${pids[@]}" || true
    die "emulator or server ended by itself; see $demo/emulator.log and $demo/server.log"
fi
