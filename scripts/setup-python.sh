#!/usr/bin/env bash
# Creates a Python environment and installs the Debian packages used with it: target/venv for building and testing,
# or with --demo target/venv-demo with only what the demo needs. Prints the path of its python. Quick if nothing
# is missing.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

venv=$ROOT/target/venv
requirements=$(cat "$ROOT/tests/python/requirements.txt")
demo=
case ${1-} in
    --demo) demo=1 ;;
    '') ;;
    *) die "unknown option $1; usage: $0 [--demo]" ;;
esac

# up_to_date VENV REQUIREMENTS: whether these were installed, with this Python.
stamp_of() { (python3 --version && printf '%s\n' "$1") | sha256sum | cut -d ' ' -f 1; }
up_to_date() { [ "$(cat "$1/.stamp" 2>/dev/null)" = "$(stamp_of "$2")" ]; }

if [ -n "$demo" ]; then
    apt_install build-essential ca-certificates curl jq python3 python3-venv
    # The tests' environment has everything that the demo needs.
    if ! up_to_date "$venv" "$requirements"; then
        venv=$ROOT/target/venv-demo
        requirements=$(grep -E '^(numpy|pydicom)=' <<<"$requirements")
    fi
else
    # dicom3tools has dciodvfy, which checks DICOM objects against their definitions; the documentation's examples
    # use jq.
    apt_install build-essential ca-certificates curl dicom3tools jq python3 python3-venv
    # Orthanc is an archive for tests, which start it themselves and are skipped without it. The service that its
    # package would start is not wanted; an existing one is left alone.
    if ! dpkg-query -W -f '${Status}' orthanc 2>/dev/null | grep -q 'ok installed' && [ -d /run/systemd/system ]; then
        as_root systemctl mask orthanc.service >&2 || true
    fi
    (apt_install chromium chromium-driver) || say "without Chromium: tests of the page in a browser are skipped"
    (apt_install orthanc orthanc-dicomweb) || say "without Orthanc: tests that need it are skipped"
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "Python 3.10 or newer is needed"

if ! up_to_date "$venv" "$requirements"; then
    say "making $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r <(printf '%s\n' "$requirements") >&2
    stamp_of "$requirements" >"$venv/.stamp"
fi
echo "$venv/bin/python"
