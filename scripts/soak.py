#!/usr/bin/env python3
"""Loads and unloads many models on a local multi-model endpoint, with many clients at once.

Run in the Python environment of the tests: $(scripts/setup-python.sh) scripts/soak.py
Checks every answer and every status, and prints /ping times and memory before and after.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/python"))

import tiny  # noqa: E402
from local import emulate, multi_model  # noqa: E402
from soak import soak  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--times", type=int, default=20, help="loads of each model")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--memory", type=float, default=0.10, help="growth of memory allowed, as a fraction")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        images = tiny.images(folder)
        with emulate(images.store) as ahi, multi_model(ahi.address, LOG_LEVEL="error") as server:
            problems, before, after = soak(
                server, images, folder, arguments.models, arguments.times, arguments.clients
            )
    if after > before * (1 + arguments.memory):
        problems.append(f"memory grew by more than {arguments.memory:.0%}")
    print("no problem" if not problems else f"{len(problems)} problems, last: {problems[-1]}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
