#!/usr/bin/env python3
"""Many concurrent requests to a local server, which is told to stop in the middle of the last run.

Run in the Python environment of the tests: $(scripts/setup-python.sh) scripts/load.py
Every request must be answered as if it were alone, or refused with 503 and Retry-After.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/python"))

import tiny  # noqa: E402
from load import load, load_and_stop  # noqa: E402
from local import emulate, serve  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "model/ct_phantom")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--size", type=int, default=48, help="rows and columns of the images")
    parser.add_argument("--slices", type=int, default=32)
    arguments = parser.parse_args()
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        images = tiny.images(folder, arguments.size, arguments.slices)
        with emulate(images.store) as ahi:
            for title, flags in [("a queue for all", ()), ("a queue of 4", ("--queue", 4))]:
                print(f"-- {title}")
                with serve(arguments.model, ahi.address, *flags) as server:
                    problems += load(server, images.request, arguments.requests, arguments.at_once)[1]
            print("-- told to stop")
            server = serve(arguments.model, ahi.address)
            problems += load_and_stop(server, images.request, arguments.requests // 2, arguments.at_once)
    for problem in problems[:20]:
        print(f"PROBLEM: {problem}")
    print("no problem" if not problems else f"{len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
