#!/usr/bin/env bash
# The whole way on one machine, without AWS: makes a synthetic CT, imports it into the emulator of
# AWS HealthImaging, serves a network for it, asks for a segmentation over HTTP, saves a picture of it,
# and compares it with the truth. Everything it makes is in target/demo. AHI_INFERENCE_BIN names a program
# that is built already.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

demo=$ROOT/target/demo
binary=${AHI_INFERENCE_BIN:-$ROOT/target/release/ahi-inference}
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

# background NAME COMMAND...: starts a command that `stop` ends; its output goes to NAME.log.
background() {
    local log=$demo/$1.log
    shift
    : >"$log"
    "$@" >>"$log" 2>&1 &
    pids+=($!)
}

# Whether the command started last still runs; where it does not, shows its log and gives up.
running() {
    kill -0 "${pids[-1]}" 2>/dev/null && return
    cat "$demo/$1.log" >&2
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

# ask TYPE FILE: one request, its answer of the media type TYPE into FILE.
ask() {
    local status
    status=$(curl --silent --show-error --max-time 300 --output "$2" --write-out '%{http_code}' \
        --header 'Content-Type: application/json' --header "Accept: $1" \
        --data "$request" "$server/invocations")
    [ "$status" = 200 ] || die "the server answered $status: $(head -c 2000 "$2")"
}

say "building"
python=$(scripts/setup-python.sh)
[ -n "${AHI_INFERENCE_BIN:-}" ] || cargo build --release --locked
unset AHI_INFERENCE_BIN # no setting of the program, which refuses unknown ones
ORT_DYLIB_PATH=$(scripts/get-onnxruntime.sh)
export ORT_DYLIB_PATH

say "making a synthetic CT"
rm -rf "$demo"
mkdir -p "$demo"
"$binary" phantom --out "$demo/phantom"

say "importing it into the emulated HealthImaging"
"$binary" import "$demo/phantom/dicom" --folder "$demo/store" | tee "$demo/import.json"
request=$("$python" - "$demo/import.json" <<'PYTHON'
import json, sys
made = json.load(open(sys.argv[1]))
print(json.dumps({"inputs": [
    {"datastoreId": made["datastoreId"], "imageSetId": image_set["imageSetId"]} for image_set in made["imageSets"]
], "outputs": ["dicom-seg", "preview"]}))
PYTHON
)

say "starting the emulator and the server"
background emulator "$binary" emulate --folder "$demo/store" --port 0 --s3-port 0
wait_until 20 emulator_answers || die "the emulator does not answer; see $demo/emulator.log"
echo "emulator at $endpoint"

# The emulator asks for no real credentials; the SDK wants some to sign with.
export AHI_ENDPOINT_URL=$endpoint
export AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo AWS_REGION=us-east-1
server=http://127.0.0.1:$(free_port)
background server "$binary" serve --model "$ROOT/model/ct_phantom" --port "${server##*:}"
wait_until 60 server_answers || die "the server does not answer; see $demo/server.log"
echo "server at $server"

say "asking for a segmentation: $request"
ask application/json "$demo/answer.json"
"$python" - "$demo/answer.json" <<'PYTHON'
import json, sys

def shorten(value):
    """Leaves out the middle of long strings, such as a file inline."""
    if isinstance(value, dict):
        return {key: shorten(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shorten(item) for item in value]
    return f"{value[:60]}… ({len(value)} characters)" if isinstance(value, str) and len(value) > 200 else value

print(json.dumps(shorten(json.load(open(sys.argv[1]))), indent=2, ensure_ascii=False))
PYTHON

say "saving the picture of it"
"$python" - "$demo/answer.json" "$demo/preview.png" <<'PYTHON'
import base64, json, sys
[result] = json.load(open(sys.argv[1]))["results"]
[picture] = [output for output in result["outputs"] if output["kind"] == "preview"]
open(sys.argv[2], "wb").write(base64.b64decode(picture["data"]))
PYTHON
echo "$demo/preview.png: three planes with the segments outlined"

say "asking for the DICOM segmentation alone"
ask application/dicom "$demo/segmentation.dcm"
echo "$demo/segmentation.dcm: $(wc -c <"$demo/segmentation.dcm") bytes"

say "comparing it with the truth"
"$python" scripts/dice.py "$demo/segmentation.dcm" "$demo/phantom" --least 0.9

say "done; everything is in $demo, the picture in $demo/preview.png"
