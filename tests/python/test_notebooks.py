"""The notebooks, executed against the local cloud: their numbers and their pictures.

NOTEBOOKS_OUT names a folder for the executed notebooks and their pictures, for inspection.
"""

import ast
import base64
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pydicom
import pytest
from nbclient import NotebookClient
from PIL import Image

from local import BINARY, ROOT, run
from test_container import docker, engine, image  # noqa: F401  fixtures
from test_export import PYTHON as TORCH

FOLDER = ROOT / "notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
OUT = os.environ.get("NOTEBOOKS_OUT")
PHANTOM = ("--size", 96, "--slices", 64)
WIDGET = "application/vnd.jupyter.widget-state+json"


class Executed:
    """An executed notebook; cells are identified by their IDs."""

    def __init__(self, name, folder, python=sys.executable, **environment):
        self.book = nbformat.read(FOLDER / name, 4)
        self.cells = {cell.id: cell for cell in self.book.cells}
        kernel = folder / "jupyter/kernels/tested/kernel.json"
        kernel.parent.mkdir(parents=True)
        argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel.write_text(json.dumps({"argv": argv, "display_name": "tested", "language": "python"}))
        (folder / "tmp").mkdir()
        kept = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
        folders = {"JUPYTER_PATH": str(folder / "jupyter"), "TMPDIR": str(folder / "tmp"), "IPYTHONDIR": str(folder / "ipython")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JUPYTER_PATH", folders["JUPYTER_PATH"])
            client = NotebookClient(self.book, timeout=300, kernel_name="tested", coalesce_streams=True,
                                    resources={"metadata": {"path": str(FOLDER)}})
            try:
                client.execute(env=kept | {"AHI_INFERENCE_BIN": str(BINARY)} | folders | environment)
            finally:
                self._save(name)
        # The cloud ends with its kernel, but not immediately.
        for _ in range(150):
            self.leftovers = list((folder / "tmp").glob("ahi-inference-*"))
            if not self.leftovers:
                break
            time.sleep(0.1)

    def text(self, cell):
        return "".join(output.text for output in self.cells[cell].outputs if output.output_type == "stream")

    def pictures(self, cell):
        encoded = [output.data["image/png"] for output in self.cells[cell].outputs if "image/png" in output.get("data", {})]
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB")).astype(int) for one in encoded]

    def widgets(self):
        """How many volumes each NiiVue widget shows."""
        state = self.book.metadata.widgets[WIDGET].state.values()
        return [len(one.state.volumes) for one in state if one.state.get("_anywidget_id") == "ipyniivue.widget.NiiVue"]

    def _save(self, name):
        if not OUT:
            return
        Path(OUT).mkdir(parents=True, exist_ok=True)
        nbformat.write(self.book, Path(OUT) / name)
        for cell in self.cells:
            for number, output in enumerate(self.cells[cell].get("outputs", [])):
                if png := output.get("data", {}).get("image/png"):
                    (Path(OUT) / f"{Path(name).stem}-{cell}-{number}.png").write_bytes(base64.b64decode(png))


def grey(picture):
    """The share of pixels that are grey: neither white nor black, and without colour."""
    spread = picture.max(axis=2) - picture.min(axis=2)
    return ((spread < 8) & (picture.max(axis=2) > 8) & (picture.min(axis=2) < 248)).mean()


def coloured(picture):
    """The share of pixels with colour."""
    return (picture.max(axis=2) - picture.min(axis=2) > 40).mean()


def rows(text):
    """The numbers on lines that begin with a label."""
    found = {}
    for line in text.splitlines():
        if match := re.match(r"([A-Z][A-Za-z ]*?)\s{2,}([-\d. ]+)$", line):
            found[match.group(1)] = [float(number) for number in match.group(2).split()]
    return found


def truth(folder, seed=2024):
    """The millilitres of each organ, by label, in the phantom that the notebooks import."""
    made = json.loads(run("phantom", "--out", folder / f"phantom-{seed}", "--seed", seed, *PHANTOM))
    return {entry["name"].capitalize(): entry["millilitres"] for entry in made["labels"]}


def hounsfield(folder):
    """The values of that phantom."""
    slices = [pydicom.dcmread(file) for file in (folder / "phantom-2024/dicom").iterdir()]
    return np.stack([one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in slices])


# How they are stored.


@pytest.mark.parametrize("name", NAMES)
def test_they_are_stored_without_results(name):
    book = nbformat.read(FOLDER / name, 4)
    nbformat.validate(book)
    assert not [cell.id for cell in book.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    assert (FOLDER / name).stat().st_size < 20_000
    long = [line for cell in book.cells if cell.cell_type == "code" for line in cell.source.splitlines() if len(line) > 120]
    assert not long, long


def assigned(source):
    """The names that Python code assigns, except within expressions."""
    targets = [target for node in ast.parse(source).body if isinstance(node, ast.Assign) for target in node.targets]
    return {node.id for target in targets for node in ast.walk(target)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_alone_differs_on_aws(name):
    setup, *others = [cell.source for cell in nbformat.read(FOLDER / name, 4).cells if cell.cell_type == "code"]
    here, aws = setup.split("# On AWS:\n")
    aws = "\n".join(line.removeprefix("# ") for line in aws.splitlines())
    # These are used only to start the programs of this machine.
    assert assigned(here) - {"cloud", "quiet"} == assigned(aws)
    used = {node.id for source in others for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    assert not used & {"cloud", "quiet", "LocalCloud", "LocalSession"}


def test_links_of_notebooks_lead_somewhere():
    pages = [(name, cell.source) for name in NAMES for cell in nbformat.read(FOLDER / name, 4).cells if cell.cell_type == "markdown"]
    targets = [(name, target) for name, text in pages for target in re.findall(r"\]\(([^)#\s]+)", text)]
    assert targets and not [one for one in targets if "://" not in one[1] and not (FOLDER / one[1]).exists()]


def pins(path):
    return dict(re.findall(r"^([\w-]+)(==.+)$", path.read_text(), re.MULTILINE))


def test_versions_are_those_of_the_tests():
    ours, theirs = pins(FOLDER / "requirements.txt"), pins(ROOT / "tests/python/requirements.txt")
    assert "boto3" in ours
    # The tests do not need the browser side.
    assert {name: pin for name, pin in ours.items() if theirs.get(name) != pin}.keys() <= {"jupyterlab"}


# What they show.


def test_import_and_look(tmp_path):
    book = Executed("1-import-and-look.ipynb", tmp_path)
    truth(tmp_path)
    values = hounsfield(tmp_path)
    assert book.text("datastore").strip().endswith("ACTIVE")
    assert "import job COMPLETED" in book.text("import-job")
    assert "64 of 64 files, 1 image set" in book.text("manifest")
    assert re.search(r"Modality +CT\n", book.text("metadata")) and re.search(r"Rows +96\n", book.text("metadata"))
    assert re.match(r"image/jph: \d+ bytes for 18432 bytes of int16 pixels", book.text("frame"))
    shown = re.search(r"\(96, 96, 64\) voxels of \(.*2\.5.*, .*2\.5.*, .*2\.0.*\) mm, (-\d+) to (\d+) HU", book.text("volume"))
    assert shown, book.text("volume")
    assert [int(shown.group(1)), int(shown.group(2))] == [values.min(), values.max()]
    for cell in ("frame", "volume", "planes"):
        [picture] = book.pictures(cell)
        assert grey(picture) > 0.1, cell
    assert book.widgets() == [1]
    assert not book.leftovers


def close(found, expected):
    return found.keys() == expected.keys() and all(abs(found[name][0] / expected[name] - 1) < 0.1 for name in expected)


def test_real_time(tmp_path):
    book = Executed("2-real-time.ipynb", tmp_path)
    volumes = rows(book.text("invoke"))
    assert close(volumes, truth(tmp_path)), book.text("invoke")
    assert re.search(r"inference +\d\.\d+ s", book.text("timings"))
    assert {line.split()[0] for line in book.text("outputs").splitlines()} == {"dicom-seg", "nifti"}
    [picture] = book.pictures("picture")
    assert grey(picture) > 0.1 and coloured(picture) > 0.02
    # Both packages are served, each with its own codes and outputs.
    second, first = book.text("second").splitlines()
    assert second.split()[0] == "ct_phantom_v2.tar.gz" and second.split("Spleen")[1].split() == ["78961009", "dicom-seg-labelmap,", "dicom-sr"]
    assert first.split()[0] == "ct_phantom.tar.gz" and first.split()[-1] == "dicom-seg"
    assert book.text("failure").startswith("404 not_found: ")
    # The stream ends with the same numbers, after full progress bars.
    streamed = book.text("stream")
    assert rows(streamed) == volumes
    for stage in ("frames", "inference", "write"):
        assert re.search(rf"^{stage} *: 100%.* (\d+)/\1 ", streamed, re.MULTILINE), streamed
    assert book.widgets() == [2]
    assert not book.leftovers


def test_asynchronous(tmp_path):
    book = Executed("3-asynchronous.ipynb", tmp_path)
    assert re.findall(r"^(case-\d) s3://data/results/reports/", book.text("submit"), re.MULTILINE) == ["case-1", "case-2", "case-3"]
    assert re.search(r"cases: 100%.* 3/3 ", book.text("wait"))
    volumes = rows(book.text("volumes"))
    for number in (1, 2, 3):
        case = {name: [values[number - 1]] for name, values in volumes.items()}
        assert close(case, truth(tmp_path, number)), (number, book.text("volumes"))
    assert len(re.findall(r"\.dcm$", book.text("results"), re.MULTILINE)) == 6
    [picture] = book.pictures("seg")
    assert grey(picture) > 0.1 and coloured(picture) > 0.02
    [picture] = book.pictures("compare")
    assert coloured(picture) > 0.05
    assert book.text("failure").startswith("not_found: ")
    assert book.widgets() == [2]
    assert not book.leftovers


def check_own_bundle(book, folder, way):
    assert way in book.text("export"), book.text("export")
    assert "roi_size: [64, 64, 64]" in book.text("check") and "this bundle can be served" in book.text("check")
    truth(folder)
    values = hounsfield(folder)
    millilitres = 2.5 * 2.5 * 2 / 1000
    [soft, bone] = [rows(book.text("ask"))[name][0] for name in ("Soft tissue", "Bone")]
    assert abs(soft / (((values > -300) & (values <= 200)).sum() * millilitres) - 1) < 0.05
    # Bones are a few voxels thick, and the network smooths them.
    assert abs(bone / ((values > 200).sum() * millilitres) - 1) < 0.4
    [picture] = book.pictures("picture")
    assert coloured(picture) > 0.05
    assert book.widgets() == [2]
    assert not book.leftovers


def test_own_bundle(tmp_path):
    book = Executed("4-own-bundle.ipynb", tmp_path)
    here = all(importlib.util.find_spec(name) for name in ("torch", "monai", "onnx", "onnxruntime"))
    check_own_bundle(book, tmp_path, "exported from model.ts" if here else "written as ONNX without PyTorch")


def missing(python, *modules):
    """The modules that a Python lacks."""
    test = "import importlib.util, sys; print(*[m for m in sys.argv[1:] if not importlib.util.find_spec(m)])"
    return subprocess.run([python, "-c", test, *modules], capture_output=True, text=True, check=True).stdout.split()


def test_own_bundle_by_pytorch(tmp_path):
    python = os.environ.get("NOTEBOOKS_TORCH_PYTHON", TORCH)
    if python is None:
        pytest.skip("PyTorch and MONAI are not installed (scripts/setup-compare.sh does it)")
    if python == sys.executable:
        pytest.skip("test_own_bundle runs with PyTorch already")
    if lacking := missing(python, "torch", "monai", "onnxruntime", "ipykernel", "ipyniivue", "matplotlib", "openjpeg", "boto3", "highdicom"):
        pytest.skip(f"{python} has PyTorch, and not what notebooks need: {', '.join(lacking)}")
    check_own_bundle(Executed("4-own-bundle.ipynb", tmp_path, python), tmp_path, "exported from model.ts")


def test_local_mode(tmp_path, request):
    python = os.environ.get("LOCAL_MODE_PYTHON", str(ROOT / "target/notebooks-venv/bin/python"))
    needed = ("sagemaker", "docker", "ipykernel", "matplotlib", "openjpeg", "highdicom", "nibabel")
    if not Path(python).is_file():
        pytest.skip(f"{python} is not there (scripts/notebooks.sh --local-mode --prepare makes it)")
    if lacking := missing(python, *needed):
        pytest.skip(f"{python} lacks {', '.join(lacking)} (scripts/notebooks.sh --local-mode --prepare)")
    if not shutil.which("docker"):
        pytest.skip("there is no docker command")
    if not shutil.which("docker-compose") and docker("compose", "version", check=False).returncode != 0:
        pytest.skip("there is no docker compose")
    tag = request.getfixturevalue("image")
    ours = ("--filter", f"ancestor={tag}", "--filter", "network=sagemaker-local")
    try:
        # With keys, so that those that the SDK passes on are there.
        book = Executed("5-local-mode.ipynb", tmp_path, python, LOCAL_MODE_IMAGE=tag, AWS_ACCESS_KEY_ID="local",
                        AWS_SECRET_ACCESS_KEY="local")
        running = docker("ps", "--quiet", *ours)
    finally:
        for container in docker("ps", "--all", "--quiet", *ours).split():
            docker("rm", "--force", container)
    assert not running
    assert close(rows(book.text("predict")), truth(tmp_path)), book.text("predict")
    [picture] = book.pictures("picture")
    assert grey(picture) > 0.1 and coloured(picture) > 0.02
