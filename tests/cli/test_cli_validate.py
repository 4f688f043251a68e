"""`edgekit validate PACKAGE`: the gates again, from the package alone, without PyTorch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.__main__ import main


@pytest.fixture(scope="session")
def made(workplace: Callable[[], Path], write_layer: Callable[..., str]) -> Path:
    """A working directory with out/cpu-x86 and the float graph beside it."""
    folder = workplace()
    command = ["export", write_layer(folder, width=16), "-t", "cpu-x86", "-c", "data.npz", "-o", "out"]
    assert main([*command, "--runs", "0", "--keep-float", "-q"]) == 0
    return folder / "out"


@pytest.fixture
def package(made: Path, place: Path) -> Path:
    """A copy of the package, to be damaged."""
    return Path(shutil.copytree(made / "cpu-x86", place / "package"))


def rewrite_manifest(package: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    change(manifest)
    (package / "manifest.json").write_text(json.dumps(manifest))


class TestGood:
    def test_an_intact_package_passes(self, run, package):
        ran = run("validate", package)
        assert (ran.code, ran.err) == (0, "")
        assert "Signal to quantization noise" in ran.out
        assert "pass" in ran.out

    def test_json_is_all_there_is_on_standard_output(self, run, package):
        ran = run("validate", package, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert json.loads(ran.out)["passed"] is True

    def test_quiet_prints_nothing(self, run, package):
        ran = run("validate", package, "-q")
        assert (ran.code, ran.out, ran.err) == (0, "", "")

    def test_it_changes_no_file(self, run, package):
        before = {path: path.read_bytes() for path in package.rglob("*")}
        assert run("validate", package).code == 0
        assert {path: path.read_bytes() for path in package.rglob("*")} == before

    def test_the_float_graph_can_be_timed_against(self, run, package, made):
        ran = run("validate", package, "--float", made / "float-opset20.onnx", "--runs", 10, "--json")
        assert ran.code == 0, ran.err
        verdict = json.loads(ran.out)
        assert verdict["float_size"]["file_bytes"] == (made / "float-opset20.onnx").stat().st_size
        assert verdict["latency"] or verdict["latency_note"].startswith("not measured here")

    def test_it_needs_neither_torch_nor_transformers(self, run_without_torch, package):
        ran = run_without_torch("validate", package)
        assert (ran.code, ran.err) == (0, "")
        assert "pass" in ran.out


class TestChanged:
    @pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "recipe.toml", "README.md", "report.json"])
    def test_a_flipped_byte_is_found_and_named(self, refused, package, name):
        content = bytearray((package / name).read_bytes())
        content[len(content) // 2] ^= 1
        (package / name).write_bytes(content)
        said = refused("validate", "package")
        assert f"error: package/{name} is not the file that was packaged" in said

    @pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "recipe.toml", "README.md"])
    def test_a_missing_file_is_named(self, refused, package, name):
        (package / name).unlink()
        assert f"error: package lacks {name}" in refused("validate", "package")

    def test_a_file_that_does_not_belong_is_named(self, refused, package):
        (package / "extra.bin").write_bytes(b"x")
        assert "error: package/extra.bin does not belong to the package" in refused("validate", "package")

    def test_no_manifest(self, refused, package):
        (package / "manifest.json").unlink()
        said = refused("validate", "package")
        assert "error: package is not a package: it has no manifest.json" in said

    @pytest.mark.parametrize("where", ["nowhere", "texts.txt", "."])
    def test_what_is_no_package(self, refused, where):
        assert "is not a package" in refused("validate", where)

    def test_no_argument_prints_the_help(self, run):
        ran = run("validate")
        assert ran.code == 2
        assert "Usage: edgekit validate" in ran.err

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"{", "cannot be read"),
            (b"[]", "has schema version list"),
            (b"\xff\xfe", "cannot be read"),
            (b'{"schema_version": 99}', "has schema version 99"),
            (b'{"schema_version": 1}', "has no 'files'"),
        ],
    )
    def test_a_manifest_that_is_none(self, refused, package, content, message):
        (package / "manifest.json").write_bytes(content)
        assert message in refused("validate", "package")

    @pytest.mark.parametrize(
        "key", ["files", "graphs", "profile", "signature", "float", "model", "preprocessing"]
    )
    @pytest.mark.parametrize("value", [None, 7, [], {"a": 1}, {"model": 3}], ids=str)
    def test_a_manifest_that_makes_no_sense(self, run, package, key, value):
        rewrite_manifest(package, lambda manifest: manifest.update({key: value}))
        ran = run("validate", "package")
        assert "Traceback" not in ran.err
        assert ran.code in (0, 2)  # 0 where the gates need nothing of it

    def test_a_graph_that_lies_outside_is_refused(self, refused, package, made):
        rewrite_manifest(package, lambda manifest: manifest["graphs"].update(model="../texts.txt"))
        assert "names a graph that is not in it: ../texts.txt" in refused("validate", "package")

    def test_a_float_graph_that_is_not_there(self, refused, package):
        said = refused("validate", "package", "--float", "none.onnx")
        assert "error: float graph not found: none.onnx" in said

    def test_a_float_graph_that_is_none(self, refused, package):
        said = refused("validate", "package", "--float", "texts.txt")
        assert "texts.txt" in said
        assert "cannot open" in said


class TestGates:
    def _with_gate(self, package: Path, budget: float) -> None:
        from edgekit.store import sha256_file

        recipe = package / "recipe.toml"
        recipe.write_text(recipe.read_text() + f"\n[gates]\nsqnr_db = {budget}\n")
        entry = {"sha256": sha256_file(recipe), "bytes": recipe.stat().st_size}
        rewrite_manifest(package, lambda manifest: manifest["files"].update({"recipe.toml": entry}))

    def test_a_gate_that_fails_ends_with_1(self, run, package):
        self._with_gate(package, 200.0)
        ran = run("validate", package)
        assert ran.code == 1
        assert "sqnr_db is" in ran.err
        assert "The package does not do here what it did when it was made." in ran.err

    def test_json_tells_of_a_gate_that_fails(self, run, package):
        self._with_gate(package, 200.0)
        ran = run("validate", package, "--json")
        assert ran.code == 1
        verdict = json.loads(ran.out)
        assert verdict["passed"] is False
        assert next(c for c in verdict["checks"] if c["name"] == "sqnr_db")["state"] == "fail"

    def test_outputs_that_are_not_finite_fail_and_still_make_strict_json(self, run, package):
        import onnx
        from onnx import numpy_helper

        from edgekit.store import sha256_file

        model = onnx.load(package / "model.onnx")
        for initializer in model.graph.initializer:
            value = numpy_helper.to_array(initializer)
            if value.dtype == np.float32 and value.ndim == 1 and len(value) == 16:
                value = np.full_like(value, np.nan)
                initializer.CopyFrom(numpy_helper.from_array(value, initializer.name))
        onnx.save(model, package / "model.onnx")
        entry = {
            "sha256": sha256_file(package / "model.onnx"),
            "bytes": (package / "model.onnx").stat().st_size,
        }
        rewrite_manifest(package, lambda manifest: manifest["files"].update({"model.onnx": entry}))
        ran = run("validate", package, "--json")
        assert ran.code == 1, ran.err
        verdict = json.loads(ran.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        assert next(c for c in verdict["checks"] if c["name"] == "sqnr_db")["measured"] in (
            "NaN",
            "-Infinity",
        )
