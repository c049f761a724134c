"""The command line as users see it: at a terminal, with every kind of input."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tarfile
import zipfile
from pathlib import Path

import boto3
import pydicom
import pytest

from local import BINARY, ENVIRONMENT, ROOT, emulate, import_dicom, run

MODEL = ROOT / "model/ct_phantom"
AWS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_REGION": "us-east-1"}
# Sequences that move the cursor, erase, or set colours.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


class Terminal:
    """A command on its own terminal, which takes both standard output and standard error."""

    def __init__(self, *arguments, columns=100, **environment):
        process, self.terminal = pty.fork()
        if process == 0:
            os.environ.clear()
            os.environ.update(ENVIRONMENT | {"TERM": "xterm-256color"} | environment)
            os.execv(BINARY, [str(BINARY), *map(str, arguments)])
        self.process = process
        import fcntl
        import struct
        import termios
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def read(self, until=None):
        """Its output to the end, or until it contains `until`."""
        written = b""
        while until is None or until not in written:
            ready, _, _ = select.select([self.terminal], [], [], 120)
            assert ready, written
            try:
                more = os.read(self.terminal, 65536)
            except OSError:
                # The other end is closed.
                break
            if not more:
                break
            written += more
        return written.decode().replace("\r\n", "\n")

    def end(self):
        """Its output and its exit code."""
        written = self.read()
        _, status = os.waitpid(self.process, 0)
        os.close(self.terminal)
        return written, os.waitstatus_to_exitcode(status)


def at_a_terminal(*arguments, **environment):
    return Terminal(*arguments, **environment).end()


def piped(*arguments, **environment):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT | environment)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    run("phantom", "--out", folder / "phantom", "--size", 64, "--slices", 40, "--spacing", 6)
    return folder / "phantom/dicom"


@pytest.fixture(scope="module")
def report(phantom, tmp_path_factory):
    """The report for the folder, with which all others are compared."""
    out = tmp_path_factory.mktemp("first")
    report = json.loads(run("run", phantom, "--model", MODEL, "--out", out))
    assert report["segments"]
    return report


def segmented(report, source, out, *flags, **environment):
    done = piped("run", source, "--model", MODEL, "--out", out, *flags, **environment)
    assert done.returncode == 0, done.stderr
    other = json.loads(done.stdout)
    assert other["segments"] == report["segments"]
    assert other["seriesInstanceUID"] == report["seriesInstanceUID"]
    return other


def archives(files, folder):
    with zipfile.ZipFile(folder / "ct.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.name)
    for name, mode in [("ct.tar", "w"), ("ct.tgz", "w:gz")]:
        with tarfile.open(folder / name, mode) as archive:
            for file in files:
                archive.add(file, file.name)
    return [folder / name for name in ("ct.zip", "ct.tar", "ct.tgz")]


def test_archives_are_what_they_hold(phantom, report, tmp_path):
    for archive in archives(files_of(phantom), tmp_path):
        segmented(report, archive, tmp_path / f"out-{archive.suffix[1:]}")
    done = piped("run", tmp_path / "ct.zip", "--model", MODEL, "--out", tmp_path / "x", MAX_INPUT_BYTES="1024")
    assert done.returncode == 1 and json.loads(done.stderr.splitlines()[-1])["code"] == "payload_too_large"


def test_one_of_several_series_in_an_archive(phantom, report, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for index, file in enumerate(files_of(phantom)):
        data = pydicom.dcmread(file)
        data.SeriesInstanceUID += ".7"
        data.SOPInstanceUID += ".7"
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.save_as(other / f"other{index}.dcm")
    [archive, *_] = archives(files_of(phantom) + files_of(other), tmp_path)
    done = piped("run", archive, "--model", MODEL, "--out", tmp_path / "out")
    assert done.returncode == 1
    error = json.loads(done.stderr.splitlines()[-1])
    assert error["code"] == "invalid_request" and "2 series" in error["message"], error
    segmented(report, archive, tmp_path / "out", "--series", report["seriesInstanceUID"])
    said, code = at_a_terminal("run", archive, "--model", MODEL, "--out", tmp_path / "new")
    assert code == 1 and "hint: add --series" in said, said


def test_one_file_is_read(phantom, tmp_path):
    """A single slice, which is segmented with a warning."""
    [first, *_] = files_of(phantom)
    report = json.loads(run("run", first, "--model", MODEL, "--out", tmp_path / "out"))
    assert report["geometry"]["dimensions"] == [64, 64, 1] and report["frames"]["count"] == 1


def test_images_in_s3_and_healthimaging(phantom, report, tmp_path):
    store = tmp_path / "store"
    made = import_dicom(phantom, store)
    with emulate(store) as ahi:
        address = ahi.next_address()
        environment = AWS | {"AHI_ENDPOINT_URL": ahi.address, "S3_ENDPOINT_URL": address, "S3_PATH_STYLE": "true"}
        s3 = boto3.client("s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="local",
                          aws_secret_access_key="local")
        s3.create_bucket(Bucket="input")
        for file in files_of(phantom):
            s3.upload_file(str(file), "input", f"ct/{file.name}")
        [archive, *_] = archives(files_of(phantom), tmp_path)
        s3.upload_file(str(archive), "input", "ct.zip")
        sets = f"{made['datastoreId']}/{made['imageSetId']}"
        arn = "arn:aws:medical-imaging:us-east-1:123456789012:datastore/" + sets.replace("/", "/imageset/")
        for number, place in enumerate(
            ["s3://input/ct/", "s3://input/ct.zip", f"ahi://{sets}", f"ahi://{sets}?versionId=1", arn]
        ):
            segmented(report, place, tmp_path / f"out{number}", **environment)
        for place, code, says in [
            ("s3://input/none", "not_found", "no object"),
            (f"ahi://{sets}?versionId=9", "not_found", made["imageSetId"]),
            (arn.replace("us-east-1", "eu-west-1"), "configuration", "eu-west-1"),
        ]:
            done = piped("run", place, "--model", MODEL, "--out", tmp_path / "no", **environment)
            error = json.loads(done.stderr.splitlines()[-1])
            assert error["code"] == code and says in error["message"], error
        done = piped("run", f"ahi://{sets}", "--series", "1.2", "--model", MODEL, "--out", tmp_path / "no", **environment)
        assert "holds one series" in done.stderr
    for place in ("ahi://short/set", "https://host/ct.zip", "s3://input/request.json"):
        done = piped("run", place, "--model", MODEL, "--out", tmp_path / "no")
        assert done.returncode == 2 and json.loads(done.stderr)["code"] == "configuration", done.stderr


def test_a_table_at_a_terminal_and_json_elsewhere(phantom, report, tmp_path):
    said, code = at_a_terminal("run", phantom, "--model", MODEL, "--out", tmp_path / "out", "--output",
                               "dicom-seg,nifti,preview")
    assert code == 0, said
    # Each stage had its bar; all of them are erased at the end.
    for stage in ("loading the model", "frames", "preprocess", "inference", "write"):
        assert stage in said, stage
    after = said[said.rindex("ct_phantom: "):]
    assert not ESCAPES.search(after), after
    assert "64 × 64 × 40 voxels" in after
    for segment in report["segments"]:
        [line] = [line for line in after.splitlines() if segment["label"] in line]
        assert str(segment["voxels"]) in line.split() and f"{segment['millilitres']:.2f}" in line.split(), line
    for kind, extension in [("dicom-seg", "seg.dcm"), ("nifti", "labels.nii.gz"), ("preview", "preview.png")]:
        [line] = [line for line in after.splitlines() if line.startswith(f"{kind} ")]
        path = Path(line.split()[-1])
        assert path.is_file() and path.name.endswith(f".{extension}"), line
        assert path.parent == (tmp_path / "out").resolve()
    assert re.search(r"^seconds: .*total \d+\.\d\d \((OpenVINO|CPU)ExecutionProvider\)$", after, re.M), after
    said, code = at_a_terminal("run", phantom, "--model", MODEL, "--out", tmp_path / "json", "--json")
    assert code == 0
    assert json.loads(said[said.index("{\n"):])["segments"] == report["segments"]
    done = piped("run", phantom, "--model", MODEL, "--out", tmp_path / "table", "--table")
    assert done.stdout.startswith("ct_phantom: ")
    # Log lines only, and nothing drawn.
    assert all(json.loads(line)["level"] for line in done.stderr.splitlines())
    done = piped("run", phantom, "--model", MODEL, "--out", tmp_path / "both", "--table", PRINT_JSON="true")
    assert done.returncode == 2 and "exclude each other" in done.stderr


def test_a_bar_has_a_rate_and_the_time_left(phantom, tmp_path):
    made = import_dicom(phantom, tmp_path / "store")
    with emulate(tmp_path / "store") as ahi:
        # Slow enough for a bar to be drawn half way.
        said, code = at_a_terminal("run", f"ahi://{made['datastoreId']}/{made['imageSetId']}", "--model", MODEL, "--out",
                                   tmp_path / "out", AHI_ENDPOINT_URL=ahi.address, AHI_FRAMES_PER_SECOND="20", **AWS)
    assert code == 0, said
    assert re.search(r"\d+/40 frames +\S+/s +\S+ left", ESCAPES.sub("", said)), said


def test_a_narrow_terminal_has_a_table_that_fits(phantom, tmp_path):
    said, code = Terminal("run", phantom, "--model", MODEL, "--out", tmp_path / "out", columns=60).end()
    assert code == 0
    table = [line for line in said.splitlines() if "─" in line or "═" in line]
    assert table and all(len(ESCAPES.sub("", line)) <= 60 for line in table), table


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_names_say_what_is_in_the_files(phantom, report, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(phantom, tmp_path / "images")
    phantom = tmp_path / "images"
    for file in files_of(phantom):
        data = pydicom.dcmread(file)
        data.PatientName, data.PatientID, data.StudyDescription = "Nobody^Jane", "4711", "Nothing of it"
        data.save_as(file)
    kinds = "dicom-seg,dicom-seg-labelmap,dicom-sr,rtstruct,nifti,preview,secondary-capture,stl,glb"
    labels = [segment["label"] for segment in report["segments"]]
    run("run", phantom, "--model", MODEL, "--out", out, "--output", kinds)
    made = names(out)
    assert len(made) == 9
    [stem] = {name.split(".", 1)[0] for name in made}
    assert stem.startswith(re.sub("[^a-z0-9]+", "-", labels[0].lower())), (stem, labels)
    assert not any(word in name.lower() for name in made for word in ("nobody", "jane", "4711", "nothing"))
    # Another run into the same folder is refused before it computes anything, and overwrites if asked to.
    before = (out / f"{stem}.seg.dcm").read_bytes()
    done = piped("run", phantom, "--model", MODEL, "--out", out)
    error = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 1 and f"{stem}.seg.dcm already" in error["message"], error
    assert (out / f"{stem}.seg.dcm").read_bytes() == before
    run("run", phantom, "--model", MODEL, "--out", out, "--overwrite", "--fresh-uids")
    assert (out / f"{stem}.seg.dcm").read_bytes() != before
    assert names(out) == made
    # A single segment gets its own file name, which is free.
    run("run", phantom, "--model", MODEL, "--out", out, "--segment", labels[0])
    assert len(names(out)) == 10


def test_errors_at_a_terminal_are_sentences(phantom, tmp_path):
    said, code = at_a_terminal("run", tmp_path / "absent", "--model", MODEL, "--out", tmp_path / "out")
    last = [line for line in ESCAPES.sub("", said).splitlines() if "error" in line]
    assert code == 1 and last and last[0].lstrip().startswith("error: ") and "absent" in last[0], said
    assert "{" not in last[0]
    said, code = at_a_terminal("run", phantom, "--model", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and "error: no MONAI bundle" in said and "hint: `ahi-inference run --help`" in said, said
    # For programs, errors are JSON, even at a terminal.
    said, code = at_a_terminal("run", phantom, "--model", tmp_path, "--out", tmp_path / "out", "--json")
    assert code == 2 and json.loads(said.splitlines()[-1])["code"] == "configuration", said
    for wrong in (["run"], ["models", "--no-such-flag", "--json"]):
        assert piped(*wrong).returncode == 2
    assert json.loads(piped("run").stderr)["code"] == "configuration"
    said, code = at_a_terminal("run")
    assert code == 2 and said.startswith("\x1b") or "error" in said
    # A name with control sequences is shown without acting on the terminal.
    evil = tmp_path / "a\x1b]0;owned\x07b"
    said, code = at_a_terminal("run", evil, "--model", MODEL, "--out", tmp_path / "out")
    assert code == 1 and "\x1b]0;" not in said and "\x07" not in said, said


def test_a_gap_has_a_hint_that_works(phantom, tmp_path):
    folder = tmp_path / "gap"
    shutil.copytree(phantom, folder)
    by_height = sorted(files_of(folder), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])
    by_height[20].unlink()
    said, code = at_a_terminal("run", folder, "--model", MODEL, "--out", tmp_path / "out")
    [hint] = re.findall(r"hint: add (--gaps \w+)", said)
    assert code == 1
    report = json.loads(run("run", folder, "--model", MODEL, "--out", tmp_path / "out", *hint.split()))
    assert report["geometry"]["dimensions"][2] == 40


def test_an_interruption_leaves_nothing_half_done(phantom, tmp_path):
    running = Terminal("run", phantom, "--model", MODEL, "--out", tmp_path / "out")
    running.read(until=b"loading the model")
    os.kill(running.process, signal.SIGINT)
    said, code = running.end()
    # It may have finished already.
    left = names(tmp_path / "out") if (tmp_path / "out").exists() else []
    if code == 0:
        assert len(left) == 1
    else:
        assert code == 1 and "error: " in said and left == [], (said, left)


@pytest.fixture
def folder_of_models(tmp_path):
    shutil.copytree(MODEL, tmp_path / "models/good")
    shutil.copytree(MODEL, tmp_path / "models/torn")
    network = tmp_path / "models/torn/models/model.onnx"
    network.write_bytes(network.read_bytes()[:1000])
    return tmp_path / "models"


def test_models_of_a_folder_are_listed(folder_of_models, report):
    done = piped("models", MODEL)
    assert done.returncode == 0, done.stderr
    [model] = json.loads(done.stdout)["models"]
    assert (model["name"], model["executionProvider"]) in [("ct_phantom", "OpenVINOExecutionProvider"), ("ct_phantom", "CPUExecutionProvider")]
    assert model["segments"] == [segment["label"] for segment in report["segments"]]
    assert model["outputs"] == ["dicom-seg"] and len(model["images"]) == 1 and len(model["window"]) == 3
    done = piped("models", MODEL_DIR=str(folder_of_models))
    assert done.returncode == 1
    good, torn = json.loads(done.stdout)["models"]
    assert good["name"] == "good" and "error" not in good
    assert torn["error"]["code"] == "invalid_model" and "model.onnx" in torn["error"]["message"], torn
    assert "1 of 2 cannot be served: torn" in done.stderr
    said, code = at_a_terminal("models", folder_of_models)
    assert code == 1 and re.search(r"good.*dicom-seg", said) and "torn cannot be served: " in said, said
    assert "hint: `ahi-inference bundle check DIR`" in said


def subcommands():
    listed = re.search(r"Commands:\n(.*?)\n\n?Options:", run("--help"), re.S).group(1)
    return [line.split()[0] for line in listed.splitlines() if line.strip() and not line.startswith("     ")]


def test_shells_complete_what_there_is():
    there = set(subcommands()) - {"help"}
    assert {"run", "models", "completions", "man"} <= there
    script = run("completions", "bash")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    # What bash offers after the first letters of a word.
    ask = script + """
COMP_WORDS=(ahi-inference "$1"); COMP_CWORD=1; COMP_LINE="ahi-inference $1"; COMP_POINT=${#COMP_LINE}
function=$(complete -p ahi-inference | sed -E 's/.*-F ([^ ]+) .*/\\1/')
"$function" ahi-inference "$1" ahi-inference; printf '%s\\n' "${COMPREPLY[@]}"
"""
    offered = subprocess.run(["bash", "-c", ask, "bash", ""], capture_output=True, text=True, check=True).stdout
    assert there <= set(offered.split()), offered
    offered = subprocess.run(["bash", "-c", ask, "bash", "mod"], capture_output=True, text=True, check=True).stdout
    assert offered.split() == ["models"]
    for shell in ("zsh", "fish", "elvish", "powershell"):
        assert "models" in run("completions", shell)
    # The reader may stop early.
    assert subprocess.run(f"'{BINARY}' completions bash | head -c 1", shell=True, env=ENVIRONMENT,
                          capture_output=True).stderr == b""


def test_the_manual_has_all_subcommands(tmp_path):
    there = set(subcommands()) - {"help"}
    page = run("man")
    assert page.startswith(".") and ".SH SUBCOMMANDS" in page
    for name in there:
        assert f"ahi\\-inference\\-{name}" in page.replace("\\-\\-", "--"), name
    run("man", "--out", tmp_path / "man")
    made = {path.name for path in (tmp_path / "man").iterdir()}
    assert {f"ahi-inference-{name}.1" for name in there} | {"ahi-inference.1"} <= made
    assert "GAP_POLICY" in (tmp_path / "man/ahi-inference-run.1").read_text()
    if shutil.which("man"):
        shown = subprocess.run(["man", tmp_path / "man/ahi-inference-run.1"], capture_output=True, text=True)
        assert shown.returncode == 0 and "INPUT" in shown.stdout
