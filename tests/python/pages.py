"""The documentation as data: pages with their headings, links and code blocks, and how the blocks are run.

A block of `sh` or `python` has a comment on the line before it, which readers do not see:

    <!-- run -->                   it is run, after the page's earlier ones, in one shell
    <!-- run: built already -->    the same, with AHI_INFERENCE_BIN naming the program, so that nothing is built
    <!-- not run: REASON -->       it cannot be

A page that continues a section of another page says so once: `<!-- after: PAGE#SECTION -->`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from local import BINARY, ENVIRONMENT, ROOT, free_port

# How blocks are told apart: by language, and by what a JSON block shows (`json request`).
FENCE = re.compile(r"^```(\w*) ?([\w ]*)$")
MARK = re.compile(r"^<!-- (run|run: built already|not run: .+) -->$")
AFTER = re.compile(r"^<!-- after: (\S+) -->$", re.MULTILINE)
RUNNABLE = ("sh", "python")
# Ports named in the text; a run uses free ones.
PORTS = {
    "SAGEMAKER_BIND_TO_PORT": "8080", "EMULATE_PORT": "8089", "EMULATE_S3_PORT": "8090", "EMULATE_SAGEMAKER_PORT": "8091",
}
# What the examples use from the checkout.
CHECKOUT = ("model", "scripts", "tests", "docker")


@dataclass
class Block:
    page: "Page"
    line: int
    section: str
    language: str
    kind: str
    text: str
    mark: str | None

    @property
    def runs(self):
        return self.mark is not None and self.mark.startswith("run")

    def __str__(self):
        return f"{self.page}:{self.line}"


@dataclass
class Page:
    path: Path
    text: str
    anchors: set = field(default_factory=set)
    blocks: list = field(default_factory=list)
    # Lines outside blocks, with their numbers.
    prose: list = field(default_factory=list)

    def __str__(self):
        return str(self.path.relative_to(ROOT))

    def links(self):
        for number, line in self.prose:
            for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "code", line)):
                yield number, text, target

    def code_words(self):
        """The words in backticks, with their line numbers."""
        for number, line in self.prose:
            for word in re.findall(r"`([^`]+)`", line):
                yield number, word

    def rows(self, *headings):
        """The rows of the tables with these headings, as lists of cells; an empty string is any heading."""
        table, inside = [], False
        for _, line in self.prose:
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else []
            if inside and cells and not set("".join(cells)) <= set("-:"):
                table.append(cells)
            elif not cells:
                inside = False
            if len(cells) == len(headings) and all(want in ("", cell) for want, cell in zip(headings, cells)):
                inside = True
        return table


def slug(heading):
    """The anchor that GitHub generates for a heading."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def read(path):
    page = Page(path, path.read_text())
    section, block, before = "", None, ""
    for number, line in enumerate(page.text.splitlines(), 1):
        fence = FENCE.match(line)
        if block is not None:
            if line == "```":
                page.blocks.append(block)
                block = None
            else:
                block.text += line + "\n"
        elif fence:
            mark = MARK.match(before)
            block = Block(page, number, section, *fence.groups(), "", mark and mark.group(1))
        else:
            if line.startswith("#"):
                section = slug(line.lstrip("#"))
                page.anchors.add(section)
            page.prose.append((number, line))
        before = line
    assert block is None, f"{page}: the block of line {block.line} does not end"
    return page


@cache
def pages():
    """Every page, by its path in the checkout."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "docker/README.md",
             ROOT / "notebooks/README.md"]
    return {str(path.relative_to(ROOT)): read(path) for path in sorted(paths)}


def blocks(*languages):
    return [block for page in pages().values() for block in page.blocks if block.language in languages]


def to_run(page):
    """The blocks that a page runs, including those it continues from."""
    first = []
    for target in AFTER.findall(page.text):
        file, _, section = target.partition("#")
        other = pages()[os.path.relpath((page.path.parent / file).resolve(), ROOT)]
        first += [block for block in other.blocks if block.runs and block.section == section]
        assert first, f"{page}: nothing runs in {target}"
    return first + [block for block in page.blocks if block.runs]


def prepare(folder):
    """Makes a folder look like a checkout in which the program was built."""
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    (folder / "target/release").mkdir(parents=True)
    (folder / "target/release/ahi-inference").symlink_to(BINARY)
    library = Path(os.environ["ORT_DYLIB_PATH"]).parent
    (folder / "target/onnxruntime").mkdir()
    (folder / "target/onnxruntime/lib").symlink_to(library)
    # The environment that runs this is the one that scripts/setup-python.sh would create.
    (folder / "target/venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".stamp":
            (folder / "target/venv" / entry.name).symlink_to(entry)
    stamp = '(python3 --version && cat tests/python/requirements.txt) | sha256sum | cut -d " " -f 1 >target/venv/.stamp'
    subprocess.run(["sh", "-c", stamp], cwd=folder, check=True)


def script(blocks, ports):
    lines = ["set -euo pipefail"]
    for block in blocks:
        text = block.text
        for name, port in ports.items():
            text = re.sub(rf"\b{PORTS[name]}\b", str(port), text)
        lines.append(f"echo '==> {block}' >&2")
        if block.language == "python":
            text = f"python3 - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n"
        if block.mark == "run: built already":
            text = f"export AHI_INFERENCE_BIN={BINARY}\n{text}\nunset AHI_INFERENCE_BIN\n"
        lines.append(text)
    return "\n".join(lines)


def run(blocks, folder, seconds=300):
    """Runs the blocks in one shell, as a reader would; returns the status and what was printed."""
    prepare(folder)
    ports = {name: free_port() for name in PORTS}
    # Without the variables of the test run: a reader starts with a plain shell.
    plain = {n: v for n, v in ENVIRONMENT.items() if not n.startswith(("AWS_", "AHI_", "S3_", "ORT_"))}
    paths = f"{Path(sys.prefix) / 'bin'}:{plain.get('PATH', os.defpath)}"
    environment = plain | {"PATH": paths} | {name: str(port) for name, port in ports.items()}
    bash = shutil.which("bash")
    shell = subprocess.Popen(
        [bash, "-c", script(blocks, ports)], cwd=folder, env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=open(folder / "stdout", "w"), stderr=open(folder / "stderr", "w"),
    )
    try:
        status = shell.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        # Also stops servers that the page started in the background.
        try:
            os.killpg(shell.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        shell.wait(60)
    return status, (folder / "stdout").read_text(), (folder / "stderr").read_text()
