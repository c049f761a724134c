#!/usr/bin/env bash
# Extracts the page's viewer from the Python wheel that the NiiVue project publishes.
#
#   scripts/get-viewer.sh [DIR]
#
# DIR is target/viewer by default. Prints it, for UI_ASSETS. The wheel and the files created from it are checked
# against the SHA-256 below; existing files that match are kept. The wheel has NiiVue inside a widget for
# notebooks, one ECMAScript module that exports only the widget: its last statement is changed to export NiiVue's
# class. The licence (BSD 2-Clause) goes along.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -le 1 ] || die "usage: $0 [DIR]"
case ${1-} in -*) die "unknown option $1; usage: $0 [DIR]" ;; esac
dir=${1:-$ROOT/target/viewer}

version=2.4.4
wheel=5e42b192a607b398c900a1e66d18aab1b41da4653a7e1641c18959bf1873cadc
files="
2b1070f954bcf0a19c3547e9b9a8dec71fa98ae59a1a2f87e572fbb92dbc37b8  niivue.js
3bf3b75cc8bc5b3ae3f120327d1d9087e3800d100a43a5fc6b0348adada411fa  niivue-LICENSE.txt"

# Whether folder $1 holds both files as they should be.
complete() {
    (cd "$1" && sha256sum --check --status --strict 2>/dev/null <<<"${files#$'\n'}")
}

mkdir -p "$dir"
if ! complete "$dir"; then
    say "getting NiiVue of ipyniivue $version"
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    # Next to the target, so that each file can be moved into place in one step.
    new=$(mktemp -d "$dir/.new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    echo "ipyniivue==$version --hash=sha256:$wheel" >"$new/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --dest "$new" -r "$new/requirements.txt" >&2
    python3 - "$new"/*.whl "$new" "$version" <<'PYTHON'
import pathlib, sys, zipfile
wheel, folder, version = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
module = wheel.read("ipyniivue/static/widget.js")
widget = b"export{Ih as default};"
if module.count(widget) != 1:
    sys.exit("the module in the wheel does not end as expected")
(folder / "niivue.js").write_bytes(module.replace(widget, b"export{t2 as Niivue};"))
licence = wheel.read(f"ipyniivue-{version}.dist-info/licenses/LICENSE")
(folder / "niivue-LICENSE.txt").write_bytes(licence)
PYTHON
    complete "$new" || die "the viewer in the wheel is not the one expected"
    chmod 0644 "$new"/niivue*
    mv -f "$new"/niivue* "$dir"
fi
cd "$dir" && pwd
