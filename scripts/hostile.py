#!/usr/bin/env python3
"""Hostile inputs, each against a fresh server with 4 GiB of memory; one row each.

Run by scripts/hostile.sh. Columns: the input; the statuses and codes of its answers; seconds; MiB added at peak to
what two good requests take; the slowest /ping meanwhile; what is wrong, or "ok".
"""

import argparse
import functools
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/python"))

import hostile  # noqa: E402
from hostile_cases import cases  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--limit", choices=["auto", "cgroup", "space"], default="auto",
                        help="what bounds the memory: a control group where one can be made, else the address space")
    arguments = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder, hostile.Limit(arguments.limit) as limit:
        print(f"memory bounded by {limit.kind}", flush=True)
        place = hostile.Place(Path(folder))
        for case in cases():
            if arguments.only not in case.name:
                continue
            row = place.attack(case, limit.apply)
            failed += bool(row.problems)
            passed += not row.problems
            print(row, flush=True)
    print(f"{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
