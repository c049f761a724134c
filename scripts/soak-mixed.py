#!/usr/bin/env python3
"""Good, bad and disconnecting clients at once on one server, for half an hour by default.

Run in the Python environment of the tests: $(scripts/setup-python.sh) scripts/soak-mixed.py
Checks answers, that all slots and memory are released, memory before and after, and /ping.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/python"))

from local import ROOT, emulate, import_dicom, run, serve  # noqa: E402
from mixed import soak  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--warm", type=int, default=120, help="seconds before memory is looked at")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run("phantom", "--out", folder / "phantom", "--size", 96, "--slices", 64)
        good = import_dicom(folder / "phantom/dicom", folder / "store")
        with emulate(folder / "store") as ahi, serve(ROOT / "model/ct_phantom", ahi.address, LOG_LEVEL="error") as server:
            problems, growth, ping = soak(server, good, arguments.seconds, arguments.warm)
    if growth > 1.1:
        problems.append("memory grew by more than 10 %")
    if ping > 0.05:
        problems.append("p99 of /ping is above 50 ms")
    for problem in problems[:20]:
        print(f"PROBLEM: {problem}")
    print("no problem" if not problems else f"{len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
