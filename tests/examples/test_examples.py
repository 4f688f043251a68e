"""The examples run as they are written, and keep what their READMEs promise."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest

from edgekit.cli.export import command
from edgekit.runtime import open_session

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if re.match(r"\d\d_", path.name))
MOST_POINTS_LOST = 0.5

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)


def commands(example):
    """Return the commands of an example's run.sh, split into words."""
    script = (example / "run.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    return [shlex.split(line) for line in script.splitlines() if line.startswith("python ")]


def test_examples_are_numbered_without_a_gap():
    assert [path.name[:2] for path in EXAMPLES] == [f"{n:02}" for n in range(1, len(EXAMPLES) + 1)]


@each_example
def test_a_readme_names_only_files_that_exist_and_the_index_names_the_example(example):
    readme = (example / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+\.(?:py|sh))`", readme)) | set(re.findall(r"^\./(\S+)$", readme, re.M))
    assert "run.sh" in named
    assert all((example / name).is_file() for name in named)
    assert example.name in (ROOT / "examples/README.md").read_text(encoding="utf-8")


@each_example
def test_a_script_runs_what_exists_with_options_that_exist(example):
    assert os.access(example / "run.sh", os.X_OK)
    exports = 0
    for words in commands(example):
        if words[1:4] == ["-m", "edgekit", "export"]:
            command.make_context("export", words[4:])  # raises on an option that is not there
            exports += 1
        else:
            assert (example / words[1]).is_file()
    assert exports


def run(example, tmp_path):
    """Run a copy of an example and return its folder and what it printed."""
    folder = Path(shutil.copytree(example, tmp_path / example.name, ignore=shutil.ignore_patterns("build")))
    python = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["./run.sh"], cwd=folder, env=environment, capture_output=True, text=True, timeout=1100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build", done.stdout


def measured(package):
    """Return check name -> value of a package, after `edgekit validate` has passed it."""
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "validate", str(package), "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((package / "report.json").read_text(encoding="utf-8"))
    return {check["name"]: check["measured"] for check in report["verdict"]["checks"]}


def points_lost(checks):
    return 100 * (checks["accuracy_float"] - checks["accuracy_quantized"])


def example_named(name):
    return next(path for path in EXAMPLES if path.name.endswith(name))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_search_with_int8_embeddings_finds_what_float_finds(tmp_path):
    build, said = run(example_named("sentence_embeddings"), tmp_path)
    checks = measured(build / "packages/cpu-x86")
    assert checks["cosine_mean"] >= 0.997
    assert (build / "packages/cpu-x86/model.onnx").stat().st_size <= 24e6
    assert "same best note for 6 of 6 queries" in said


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_text_classifier_has_learnt_and_int8_keeps_its_accuracy(tmp_path):
    build, _ = run(example_named("text_classification"), tmp_path)
    for target in ("cpu-x86", "arm64"):
        checks = measured(build / "packages" / target)
        assert checks["accuracy_float"] > 0.75  # one class in five is 0.2
        assert points_lost(checks) <= MOST_POINTS_LOST


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_image_classifiers_have_learnt_and_int8_keeps_their_accuracy(tmp_path):
    build, _ = run(example_named("image_classification"), tmp_path)
    for name, least in (("cnn", 0.98), ("vit", 0.93), ("mobilenet", 0.97)):
        for target in ("cpu-x86", "arm64"):
            checks = measured(build / name / target)
            assert checks["accuracy_float"] > least
            assert points_lost(checks) <= MOST_POINTS_LOST
    optimized = tmp_path / "as-run.onnx"
    open_session(build / "cnn/cpu-x86/model.onnx", optimized_path=optimized)
    nodes = onnx.load(optimized).graph.node
    ops = Counter(node.op_type for node in nodes)
    # The first convolution reads one channel, which the float kernel does faster.
    assert (ops["Conv"], ops["QLinearConv"], ops["QLinearAdd"], ops["QGemm"]) == (1, 5, 2, 1)
    assert not set(ops) & {"Add", "Gemm", "ReduceMean", "DequantizeLinear"}
    maker = {name: node.op_type for node in nodes for name in node.output}
    assert [maker[node.input[0]] for node in nodes if "MaxPool" in node.op_type] == ["QLinearAdd"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_module_of_ones_own_gives_the_same_answers_in_int8(tmp_path):
    build, said = run(example_named("your_own_module"), tmp_path)
    for target in ("cpu-x86", "arm64"):
        assert measured(build / "packages" / target)["sqnr_db"] > 30
    right = [float(share) for share in re.findall(r"([\d.]+)% of 200 right", said)]
    assert len(right) == 3
    assert right[0] > 90
    assert right[0] - min(right) <= MOST_POINTS_LOST
