#!/usr/bin/env python3
"""Prints an answer from /invocations as a table and saves the outputs in it.

    scripts/answer.py ANSWER.json FOLDER
"""

import base64
import json
import sys
from pathlib import Path


def table(rows):
    """Aligned columns: the first two to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (f"{cell:<{width}}" if column < 2 else f"{cell:>{width}}"
                 for column, (cell, width) in enumerate(zip(row, widths)))
        print("  " + "  ".join(cells).rstrip())


def row(segment, units):
    values = segment.get("statistics")
    spread = f"{values['mean']:.1f} ± {values['standardDeviation']:.1f} {units}" if values else "–"
    return [str(segment["number"]), segment["label"], str(segment["voxels"]), f"{segment['millilitres']:.2f}", spread]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    answer = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2])
    for result in answer["results"]:
        rows = [row(segment, result.get("units", "")) for segment in result["segments"]]
        table([["#", "segment", "voxels", "mL", "mean ± SD"], *rows])
        for warning in result["warnings"]:
            print(f"  warning: {warning}")
        seconds = ", ".join(f"{stage} {time:.2f}" for stage, time in result["timings"].items())
        print(f"  seconds: {seconds} ({result['executionProvider']})")
        for output in result["outputs"]:
            # Only the name, without folders: the answer may come from anywhere.
            path = folder / Path(output["fileName"]).name
            path.write_bytes(base64.b64decode(output["data"]))
            print(f"  {output['kind']}: {path}")


if __name__ == "__main__":
    main()
