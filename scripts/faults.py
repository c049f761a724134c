#!/usr/bin/env python3
"""AWS faults, one row each: what a server answers while transfers break, and what that costs.

Run by scripts/faults.sh in the Python environment of the tests. Every answer must be right or an error of the
fault's class. Flips, swaps and truncations of 1 % of the transfers must not lose any request, and a stall of 2 %
of them may add 3 seconds.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/python"))

import tiny  # noqa: E402
from faults import Broken  # noqa: E402
from faulty import Fault  # noqa: E402

CREDENTIALS = ("503 credentials",)


@dataclass
class Row:
    """A fault, the request that meets it, and which answers are right."""

    title: str
    faults: list
    kind: str = "ahi"
    proxy: str = "ahi"
    allowed: tuple = ()
    count: int = 0
    added: float = None


def rows(requests):
    few = min(3, requests)
    frames, objects, puts = "getImageFrame", "GET .*series", "PUT"
    return [
        Row("no fault", []),
        Row("throttle 5 %", [Fault("throttle", 0.05)]),
        Row("5xx 5 %", [Fault("5xx", 0.05)]),
        Row("reset 2 %", [Fault("reset", 0.02)]),
        Row("truncate 1 %", [Fault("truncate", 0.01)]),
        Row("short body 1 %", [Fault("short", 0.01)]),
        Row("flip 1 %", [Fault("flip", 0.01)]),
        Row("swap 1 %", [Fault("swap", 0.01)]),
        Row("stall 2 %", [Fault("stall", 0.02, seconds=40)], added=3.0),
        Row("silence 2 %", [Fault("silence", 0.02, seconds=40)], added=3.0),
        Row("slow frames 5 %", [Fault("slow", 0.05, frames, seconds=3)]),
        Row("403 on frames", [Fault("denied", 1, frames)], allowed=("403 access_denied",), count=few),
        Row("expired credentials", [Fault("expired")], allowed=CREDENTIALS, count=few),
        Row("unknown key", [Fault("unknown-key")], allowed=CREDENTIALS, count=few),
        Row("clock skew", [Fault("skew")], allowed=CREDENTIALS, count=few),
        Row("all frames 5xx", [Fault("5xx", 1, frames)], allowed=("502 upstream",), count=few),
        Row("all throttled", [Fault("throttle")], allowed=("503 throttled",), count=1),
        Row("all frames broken", [Fault("flip", 1, frames)], allowed=("422 corrupt_frame",), count=few),
        Row("frames never answer", [Fault("silence", 1, frames, 100)], allowed=("502 upstream",), count=1),
        Row("S3: no fault", [], "s3", "s3"),
        Row("S3: throttle 5 %", [Fault("throttle", 0.05)], "s3", "s3"),
        Row("S3: 5xx 5 %", [Fault("5xx", 0.05)], "s3", "s3"),
        Row("S3: reset 2 %", [Fault("reset", 0.02)], "s3", "s3"),
        Row("S3: truncate 1 %", [Fault("truncate", 0.01, "GET")], "s3", "s3"),
        Row("S3: flip 1 % (checksums)", [Fault("flip", 0.01, objects)], "s3", "s3"),
        Row("S3: swap 1 % (checksums)", [Fault("swap", 0.01, objects)], "s3", "s3"),
        Row("S3: stall 2 %", [Fault("stall", 0.02, "GET", 40)], "s3", "s3", added=3.0),
        Row("S3: 403", [Fault("denied")], "s3", "s3", ("403 access_denied",), few),
        Row("S3: expired credentials", [Fault("expired")], "s3", "s3", CREDENTIALS, few),
        Row("S3: clock skew", [Fault("skew")], "s3", "s3", CREDENTIALS, few),
        Row("S3: replaced (412)", [Fault("412", 1, objects)], "s3", "s3", ("502 upstream",), few),
        Row("outputs: no fault", [], "store", "s3"),
        Row("outputs: 5xx 30 %", [Fault("5xx", 0.3, puts)], "store", "s3", ("502 upstream",)),
        Row("outputs: second fails", [Fault("5xx", 1, r"PUT .*nii\.gz")], "store", "s3", ("502 upstream",), few),
        # Of 40 objects a few are silent three times in a row, which is as often as one is asked for at once.
        Row("outputs: silence 20 %", [Fault("silence", 0.2, puts, 40)], "store", "s3"),
        Row("outputs: silence 5 %", [Fault("silence", 0.05, puts, 40)], "store", "s3", added=3.0),
        Row("outputs: expired", [Fault("expired", 1, puts)], "store", "s3", CREDENTIALS, few),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "model/ct_phantom")
    parser.add_argument("--tiny", action="store_true", help="a model that takes no time")
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--size", type=int, default=64, help="rows and columns of the images")
    parser.add_argument("--slices", type=int, default=160)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="rows whose title has this")
    arguments = parser.parse_args()
    problems = []
    titles = ("requests", "injected", "retries", "hedges", "refetches", "median", "max")
    print(f"{'fault':26}" + "".join(f"{title:>10}" for title in titles) + "  answers", flush=True)
    usual = {}
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.bundle(Path(folder) / "tiny", 20) if arguments.tiny else arguments.model
        with Broken(folder, model, arguments.size, arguments.slices, seed=arguments.seed) as broken:
            for row in rows(arguments.requests):
                if arguments.only not in row.title and "no fault" not in row.title:
                    continue
                seen = broken.measure(row.kind, row.faults, row.count or arguments.requests, row.proxy)
                usual.setdefault(row.kind, seen.longest)
                numbers = [len(seen.answers), seen.injected]
                numbers += [seen.counters[name] for name in ("retries", "hedges", "refetches")]
                answers = ", ".join(f"{count} × {what}" for what, count in seen.outcomes.most_common())
                print(f"{row.title:26}" + "".join(f"{number:10}" for number in numbers)
                      + f"{seen.median:10.2f}{seen.longest:10.2f}  {answers}", flush=True)
                if seen.wrong:
                    problems.append(f"{row.title}: {seen.wrong} answers are wrong")
                problems += [f"{row.title}: {what}" for what in seen.outcomes if what not in ("200", *row.allowed)]
                if row.added is not None and seen.longest > usual[row.kind] + row.added:
                    problems.append(f"{row.title}: added {seen.longest - usual[row.kind]:.1f} s")
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print("no problem" if not problems else f"{len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
