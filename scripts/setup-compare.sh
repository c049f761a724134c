#!/usr/bin/env bash
# Creates the Python environment of scripts/compare.sh and scripts/bench-gpu.sh, target/compare-venv: PyTorch,
# MONAI and the other packages of scripts/compare-requirements.txt (large). Prints the path of its Python.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

venv=$ROOT/target/compare-venv
stamp=$(sha256sum scripts/compare-requirements.txt | cut -d ' ' -f 1)
if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
    say "making $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r scripts/compare-requirements.txt >&2
    echo "$stamp" >"$venv/.stamp"
fi
echo "$venv/bin/python"
