#!/usr/bin/env bash
# Opens the notebooks of notebooks/ in JupyterLab. Creates their Python environment, target/notebooks-venv, and
# builds the program if it is missing. AHI_INFERENCE_BIN names a program that is already built.
#
#   scripts/notebooks.sh                  JupyterLab; arguments go to it, such as --no-browser
#   scripts/notebooks.sh --local-mode     the same, with SageMaker's SDK for 5-local-mode.ipynb
#   scripts/notebooks.sh --prepare        everything but JupyterLab; prints the path of its Python

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

files=(notebooks/requirements.txt)
prepare=0
while [ $# -gt 0 ]; do
    case $1 in
        --local-mode) files+=(notebooks/requirements-local-mode.txt) ;;
        --prepare) prepare=1 ;;
        *) break ;;
    esac
    shift
done

venv=$ROOT/target/notebooks-venv
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "Python 3.10 or newer is needed"
stamp=$( (python3 --version && cat "${files[@]}") | sha256sum | cut -d ' ' -f 1)
if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
    say "making $venv"
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 -m venv failed; on Debian and Ubuntu, install python3-venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${files[@]/#/-r}" >&2
    echo "$stamp" >"$venv/.stamp"
fi

if [ -z "${AHI_INFERENCE_BIN:-}" ] && [ ! -x target/release/ahi-inference ]; then
    say "building the program, which takes minutes"
    cargo build --release --locked >&2
fi
ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$(scripts/get-onnxruntime.sh)}
export ORT_DYLIB_PATH

if [ $prepare = 1 ]; then
    echo "$venv/bin/python"
    exit
fi
say "opening notebooks/"
exec "$venv/bin/jupyter" lab --notebook-dir notebooks "$@"
