"""`edgekit explain PACKAGE`: a small sentence model for this machine and for another one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.__main__ import main
from edgekit.machine import read_machine

HERE = """
extends = "cpu-x86"
title = "Whatever this machine is"
status = "Only in tests."

[hardware]
isa = "{isa}"
needs = []
needs_any = []

[runtime]
points = [[1, 8], [2, 16]]
"""


@pytest.fixture(scope="session")
def explained(workplace: Callable[[], Path], tiny_st_dir: Path) -> Path:
    """A folder with the packages `here` and `web-wasm`, and their reports."""
    folder = workplace()
    (folder / "here.toml").write_text(HERE.format(isa=read_machine().isa))
    command = ["export", str(tiny_st_dir), "-t", "./here.toml", "-t", "web-wasm", "-c", "texts.txt"]
    gates = [f"{name}=0" for name in ("cosine_mean", "cosine_p05", "rank_correlation")]
    options = [word for gate in gates for word in ("--gate", gate)]
    assert main([*command, "-o", "out", "--runs", "10", "-q", *options]) == 0
    return folder / "out"


@pytest.fixture
def package(explained: Path, place: Path) -> Path:
    """A copy of the package for this machine."""
    return Path(shutil.copytree(explained / "here", place / "package"))


class TestGood:
    def test_the_tables_say_what_runs_what_it_costs_and_why(self, run, package):
        ran = run("explain", package)
        assert (ran.code, ran.err) == (0, "")
        for words in (
            "100 % of those with constant weights",
            "Where the time goes",
            "both inputs are activations",
            "makes codes for QGemm",
            "Predicted: what excluding int8 products",
            "1x8",
            "2x16",
        ):
            assert words in " ".join(ran.out.split())
        assert max(map(len, ran.out.splitlines())) <= 100

    def test_json_names_every_node_and_predicts_for_every_int8_product(self, run, package):
        ran = run("explain", package, "--json")
        assert (ran.code, ran.err) == (0, "")
        document = json.loads(ran.out)
        assert [point["shape"] for point in document["points"]] == ["1x8", "2x16"]
        for point in document["points"]:
            products = [node["name"] for node in point["nodes"] if node["role"] == "int8 product"]
            # Two layers of four products: query, key and value are packed into one; and the dense one behind.
            assert len(products) == 9
            assert [row["node"] for row in point["predicted"]] == products
            assert point["int8_weight_share"] == 1.0
            # Nothing of what quantization put in is without use.
            assert not [group for group in point["conversions"] if group["needed"] is False]

    def test_a_shape_of_the_users_own(self, run, package):
        ran = run("explain", package, "--shape", "3x20", "--shape", "1x5", "--json")
        assert [point["shape"] for point in json.loads(ran.out)["points"]] == ["3x20", "1x5"]

    def test_another_targets_package_shows_kernels_and_no_times(self, run, explained):
        ran = run("explain", explained / "web-wasm")
        assert ran.code == 0
        assert "Times are left out, since the target is wasm32" in ran.out
        assert "QGemm" in ran.out
        assert " ms" not in ran.out
        assert "GMAC/s" not in ran.out

    def test_the_report_tells_of_timed_targets_only(self, explained):
        reports = {
            r["verdict"]["target"]: r for r in json.loads((explained / "report.json").read_text())["targets"]
        }
        assert reports["web-wasm"]["explanation"] is None
        found = reports["here"]["explanation"]
        assert found["points"][0]["op_kinds"][0]["ms"] > 0
        assert json.loads((explained / "here" / "report.json").read_text())["explanation"] == found
        assert (explained / "report.html").read_text().count("Where the time goes") == 1

    def test_it_changes_no_file(self, run, package):
        before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
        assert run("explain", package, "--shape", "1x8").code == 0
        assert {path: path.read_bytes() for path in package.rglob("*") if path.is_file()} == before

    def test_it_needs_neither_torch_nor_transformers(self, run_without_torch, explained):
        ran = run_without_torch("explain", explained / "web-wasm")
        assert (ran.code, ran.err) == (0, "")
        assert "QGemm" in ran.out

    def test_from_python(self, explained):
        import edgekit

        explanation = edgekit.explain(explained / "here", shapes=["1x8"])
        assert isinstance(explanation, edgekit.Explanation)
        assert explanation.points[0].int8_weight_share == 1.0


class TestRefused:
    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ("1x4096", "--shape 1x4096: the model takes at most 48 tokens"),
            ("0x8", "--shape 0x8: not a shape"),
            ("1x", "--shape 1x: not a shape"),
            ("wide", "--shape wide: not a shape"),
            ("4", "--shape 4: the model takes sequences\nAdd a length: 4x128."),
        ],
    )
    def test_a_shape_that_the_model_does_not_take(self, refused, package, shape, message):
        assert message in refused("explain", "package", "--shape", shape)

    def test_no_threads(self, refused, package):
        assert "--threads 0: at least one" in refused("explain", "package", "--threads", 0)

    @pytest.mark.parametrize("where", ["nowhere", "texts.txt"])
    def test_what_is_no_package(self, refused, where):
        assert "is not a package" in refused("explain", where)

    def test_a_changed_graph(self, refused, package):
        content = bytearray((package / "model.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (package / "model.onnx").write_bytes(content)
        assert "is not the file that was packaged" in refused("explain", "package")

    @pytest.mark.parametrize(
        "history", [7, [7], [{"stage": "quantize", "skipped": [{"what": "x"}]}], [{}]], ids=str
    )
    def test_a_history_that_makes_no_sense(self, refused, package, history):
        manifest = json.loads((package / "manifest.json").read_text())
        (package / "manifest.json").write_text(json.dumps({**manifest, "history": history}))
        assert "its history is damaged" in refused("explain", "package")
