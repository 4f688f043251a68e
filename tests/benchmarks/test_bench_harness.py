"""A competitor that fails is a row with the reason; what is handed over survives the way through a file."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import harness
from benchmarks.job import MAX_TOKENS, Artifact, Feeds, Job, load_tokens, save_tokens

ROOM = Path(harness.__file__).parent
FILES = sorted(path.stem for path in (ROOM / "competitors").glob("*.py"))


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A build folder of the test's own, with a job in it."""
    monkeypatch.setattr(harness, "BUILD", tmp_path)
    save_tokens([[101, 7, 102], [101, 102]], tmp_path / "calibration.npz")
    return Job(tmp_path, tmp_path / "float32.onnx", tmp_path / "calibration.npz", tmp_path / "artifacts")


def test_every_file_of_a_competitor_is_in_the_table() -> None:
    assert sorted(harness.COMPETITORS) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_competitor_names_its_title_and_an_environment_that_can_be_made(name) -> None:
    tree = ast.parse((ROOM / "competitors" / f"{name}.py").read_text(encoding="utf-8"))
    constants = {
        node.targets[0].id: ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
    }
    assert constants["TITLE"]
    environment = constants["ENVIRONMENT"]
    assert environment is None or (ROOM / "requirements" / f"{environment}.txt").is_file()


@pytest.mark.parametrize("path", sorted((ROOM / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_an_environment_pins_every_package_and_the_torch_of_the_project(path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all("==" in line for line in lines), lines
    constraints = (ROOM.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert next(line for line in constraints if line.startswith("torch==")) in lines


def test_tokens_come_back_without_padding_and_padded_on_request(build) -> None:
    first, second = build.samples()
    assert first["input_ids"].tolist() == [[101, 7, 102]]
    assert second["attention_mask"].tolist() == [[1, 1]]
    padded = build.padded()[1]
    assert padded["input_ids"].shape == (1, MAX_TOKENS)
    assert padded["attention_mask"].sum() == 2


def test_a_calibration_reader_gives_the_inputs_that_the_graph_has_and_then_ends(build) -> None:
    feeds = Feeds(list(load_tokens(build.calibration)), ["attention_mask"])
    assert [set(feed) for feed in iter(feeds.get_next, None)] == [{"attention_mask"}] * 2


def test_an_artifact_survives_json() -> None:
    artifact = Artifact(Path("a.xml"), "openvino", "a note", {"key": "value"}, True)
    assert Artifact.from_json(artifact.to_json()) == artifact


def test_a_competitor_without_an_environment_is_a_row_with_the_reason(build) -> None:
    (build.folder.parent / "venvs").mkdir()
    (build.folder.parent / "venvs" / "olive.failed").write_text("ERROR: no matching\ndistribution\n")
    assert harness.make("olive_static", build) == {"failed": "not installed: ERROR: no matching distribution"}
    assert "environments.sh" in harness.make("nncf_onnx", build)["failed"]
    assert harness.artifacts({"nncf_onnx": {"failed": "why"}}, "onnxruntime") == {}


def test_a_competitor_that_breaks_leaves_its_last_words(build) -> None:
    failed = harness.make("edgekit_static", build)["failed"]  # its model folder holds no model
    assert failed.startswith("export: ")
    assert "config.json" in failed


def test_a_child_that_ends_well_gives_no_reason(build, tmp_path) -> None:
    assert harness.child([sys.executable, "-c", "print('done')"], tmp_path) == ""
    assert harness.last_line(tmp_path / "log.txt") == "done"
    assert harness.child([sys.executable, "-c", "raise SystemExit('because')"], tmp_path) == "because"


def test_the_line_that_names_the_error_is_the_reason_and_not_the_advice_after_it() -> None:
    log = "loading\nTraceback (most recent call last):\nsome.DataError: it is empty\nGive more.\n"
    assert harness.last_words(log) == "some.DataError: it is empty"
    assert harness.last_words("killed\n\n") == "killed"
    assert harness.last_words("") == "no message"


class Session:
    """An ONNX Runtime session as far as the harness uses one: it gives its input back."""

    def __init__(self, output: str) -> None:
        self.output = output

    def get_inputs(self):
        return [SimpleNamespace(name="x")]

    def get_outputs(self):
        return [SimpleNamespace(name=self.output)]

    def run(self, names, feed):
        assert set(feed) == {"x"}
        return [feed["x"]]


def test_what_is_timed_ends_in_sentences_for_every_graph() -> None:
    tokens = np.ones((2, 3, 4))
    inputs = {"x": tokens, "unused": tokens}
    assert harness.whole(Session("sentence_embedding"))(inputs)[0] is tokens
    assert np.allclose(harness.whole(Session("last_hidden_state"))(inputs), np.full((2, 4), 0.5))


def test_the_row_of_a_result_holds_no_path_of_this_machine() -> None:
    reason = f"make: cannot read {harness.ROOT}/build/x"
    row = harness._row("float32", {"path": "/somewhere", "failed": reason})
    assert row == {"name": "float32", "title": "fp32, plain export", "failed": "make: cannot read build/x"}


def test_the_bound_of_a_shape_is_lower_with_faster_kernels() -> None:
    points = [{"shape": "1x128", "macs_per_second": {"int8": 4e11, "float": 1e11}}]
    harness.add_bounds(points)
    assert points[0]["bound_ms"]["int8"] < points[0]["bound_ms"]["float"]
    assert np.isclose(points[0]["bound_ms"]["float"], (128 * 10_616_832 + 6 * 2 * 128 * 128 * 384) / 1e8)
