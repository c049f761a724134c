#!/usr/bin/env bash
# Makes the Python environment of the tests and the demo, target/venv, and installs the Debian
# packages that building and testing need. Prints the path of its python. Quick when it is done.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

venv=$ROOT/target/venv
requirements=$ROOT/tests/python/requirements.txt

# dicom3tools has dciodvfy, which checks DICOM objects against their definitions; jq is for the documentation's examples.
apt_install build-essential ca-certificates curl dicom3tools jq python3 python3-venv
# Orthanc is an archive for tests, which start it themselves and are skipped without it. The service that its
# package would start is not wanted; one that is there already is left alone.
if ! dpkg-query -W -f '${Status}' orthanc 2>/dev/null | grep -q 'ok installed' && [ -d /run/systemd/system ]; then
    as_root systemctl mask orthanc.service >&2 || true
fi
(apt_install chromium chromium-driver) || say "without Chromium: tests of the page in a browser are skipped"
(apt_install orthanc orthanc-dicomweb) || say "without Orthanc: tests that need it are skipped"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "Python 3.10 or newer is needed"

# What was installed, and with which Python.
stamp=$( (python3 --version && cat "$requirements") | sha256sum | cut -d ' ' -f 1)
if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
    say "making $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" >&2
    echo "$stamp" >"$venv/.stamp"
fi
echo "$venv/bin/python"
