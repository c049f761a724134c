#!/usr/bin/env bash
# Makes the Python environment of the tests and the demo, target/venv, and installs the Debian
# packages that building and testing need. Prints the path of its python. Quick when it is done.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

venv=$ROOT/target/venv
requirements=$ROOT/tests/python/requirements.txt

# dicom3tools has dciodvfy, which checks DICOM objects against their definitions; Orthanc is the archive that
# the tests store in.
apt_install build-essential ca-certificates curl dicom3tools orthanc orthanc-dicomweb python3 python3-venv
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
