"""`edgekit export`: what it prints, what it writes, and that a recipe makes the same bytes again."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.__main__ import main

ROOT = Path(__file__).parents[2]
Workplace = Callable[[], Path]
HEAVY = ("torch", "transformers", "optimum", "sentence_transformers", "onnxruntime", "onnx")
CNN = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8 * 4 * 4, 3)
    def forward(self, image):
        return self.head(self.pool(self.body(image)).flatten(1))

def make():
    return Small(), torch.randn(2, 1, 8, 8)
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def embedding(workplace: Workplace, tiny_st_dir: Path) -> Path:
    """A working directory with model/, texts.txt and out/: a sentence embedder for two targets."""
    folder = workplace()
    shutil.copytree(tiny_st_dir, folder / "model")
    targets = ("-t", "cpu-x86", "-t", "mobile-android")
    assert main(["export", "model", *targets, "-c", "texts.txt", "-o", "out", "--runs", "0"]) == 0
    return folder


@pytest.fixture(scope="session")
def classification(workplace: Workplace, tiny_classifier_dir: Path) -> Path:
    """A working directory with model/, labelled.csv and out/: a text classifier, asked for by full paths."""
    folder = workplace()
    model = str(shutil.copytree(tiny_classifier_dir, folder / "model"))
    data = ("-c", str(folder / "labelled.csv"), "--column", "text", "--label-column", "label")
    gates = ("--gate", "top1_agreement=0.5", "--gate", "kl_mean=9", "--gate", "accuracy_drop=99")
    assert main(["export", model, "-t", "arm64", *data, "-o", "out", *gates, "-q"]) == 0
    return folder


@pytest.fixture(scope="session")
def arrays(workplace: Workplace) -> Path:
    """A working directory with images.npz and out/: a convolutional net of the user's own."""
    folder = workplace()
    (folder / "tiny_cnn_of_export.py").write_text(CNN)
    pixels = np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype(np.float32)
    np.savez(folder / "images.npz", image=pixels)
    command = ["export", "tiny_cnn_of_export:make", "--task", "image-classification", "-t", "cpu-x86-avx2"]
    gates = ("--gate", "top1_agreement=0.5", "--gate", "kl_mean=9")
    assert main([*command, "-c", "images.npz", "-o", "out", "--runs", "0", "-q", *gates]) == 0
    return folder


@pytest.fixture
def in_embedding(embedding: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedder's working directory, as the working directory."""
    monkeypatch.chdir(embedding)
    return embedding


class TestPackage:
    def test_holds_what_an_app_needs(self, embedding: Path):
        assert {path.name for path in (embedding / "out").iterdir()} == {
            "cpu-x86",
            "mobile-android",
            "report.html",
            "report.json",
        }
        usual = {
            *("README.md", "config.json", "golden.npz", "manifest.json", "model.onnx", "recipe.toml"),
            *("report.json", "tokenizer.json", "tokenizer_config.json"),
        }
        assert set(files_of(embedding / "out/cpu-x86")) == usual
        mobile = usual | {"model.ort", "model.required_operators.config"}
        assert set(files_of(embedding / "out/mobile-android")) == mobile

    def test_its_manifest_has_the_digest_of_every_other_file(self, embedding: Path):
        import hashlib

        package = embedding / "out/mobile-android"
        recorded = json.loads((package / "manifest.json").read_text())["files"]
        found = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files_of(package).items()
            if name != "manifest.json"
        }
        assert recorded == found

    @pytest.mark.parametrize("kind", ["embedding", "classification", "arrays"])
    def test_names_nothing_of_the_machine_that_made_it(self, kind, request):
        folder: Path = request.getfixturevalue(kind)
        names = [name for name in (getpass.getuser(), socket.gethostname()) if len(name) > 4]
        private = {str(folder), str(Path.home()), str(ROOT), "/tmp/", "site-packages", *names}
        for name, content in files_of(folder / "out").items():
            # A recipe says what the user typed; these two were typed in full.
            typed = kind == "classification" and name.endswith("recipe.toml")
            for word in private if not typed else names:
                assert word.encode() not in content, f"{name} holds {word}"

    @pytest.mark.parametrize("kind", ["embedding", "classification", "arrays"])
    def test_the_program_in_its_readme_runs_as_it_stands(self, kind, request, without):
        folder: Path = request.getfixturevalue(kind)
        for package in (path for path in (folder / "out").iterdir() if path.is_dir()):
            readme = (package / "README.md").read_text(encoding="utf-8")
            (program,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
            result = subprocess.run(
                [sys.executable, "-c", program],
                cwd=package,
                env=without("torch", "transformers", "edgekit", "optimum", "sentence_transformers"),
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, result.stderr
            assert result.stderr == ""
            assert re.search(r"\d", result.stdout)

    def test_the_program_gives_what_the_golden_recorded(self, embedding: Path):
        from tokenizers import Tokenizer

        from edgekit.golden import Golden
        from edgekit.runtime import open_session

        package = embedding / "out/cpu-x86"
        golden = Golden.load(package / "golden.npz").batches[0]
        found = open_session(package / "model.onnx").run(["sentence_embedding"], dict(golden.inputs))[0]
        wanted = golden.outputs["sentence_embedding"]
        assert float((found * wanted).sum() / np.linalg.norm(found) / np.linalg.norm(wanted)) > 0.98
        assert Tokenizer.from_file(str(package / "tokenizer.json")).get_vocab_size() > 100


class TestRecipe:
    def test_of_a_package_makes_the_same_bytes_again(self, in_embedding: Path, tmp_path):
        target = "mobile-android"
        recipe = f"out/{target}/recipe.toml"
        assert main(["export", "--recipe", recipe, "-o", str(tmp_path / "again"), "-q"]) == 0
        before, after = files_of(in_embedding / "out" / target), files_of(tmp_path / "again" / target)
        assert before.keys() == after.keys()
        manifests = [json.loads(files.pop("manifest.json")) for files in (before, after)]
        for files, manifest in zip((before, after), manifests, strict=True):
            del files["report.json"], manifest["files"]["report.json"]
        assert [name for name in before if before[name] != after[name]] == []
        assert manifests[0] == manifests[1]

    def test_says_what_was_typed_and_pins_what_it_met(self, in_embedding: Path):
        import tomllib

        table = tomllib.loads((in_embedding / "out/cpu-x86/recipe.toml").read_text())
        assert table["model"] == "model"
        assert table["task"] == "sentence-embedding"
        assert table["targets"] == ["cpu-x86"]
        assert table["calibration"]["data"] == "texts.txt"
        assert set(table["pinned"]) == {"model_sha256", "profile_sha256", "calibration_sha256"}

    def test_refuses_calibration_data_that_changed(self, in_embedding: Path, tmp_path, capsys):
        recipe = (in_embedding / "out/cpu-x86/recipe.toml").read_text()
        (tmp_path / "texts.txt").write_text((in_embedding / "texts.txt").read_text() + "one more line\n")
        (tmp_path / "recipe.toml").write_text(recipe.replace('"texts.txt"', f'"{tmp_path / "texts.txt"}"'))
        assert main(["export", "--recipe", str(tmp_path / "recipe.toml"), "-o", str(tmp_path / "o")]) == 2
        said = capsys.readouterr().err
        assert "error: the calibration is not the one that the recipe was made with" in said
        assert "remove pinned.calibration_sha256" in said
        assert not (tmp_path / "o").exists()

    def test_refuses_a_model_that_changed(self, in_embedding: Path, tmp_path, capsys):
        shutil.copytree("model", tmp_path / "model")
        config = tmp_path / "model/config.json"
        config = config if config.exists() else tmp_path / "model/0_Transformer/config.json"
        config.write_text(config.read_text() + "\n")
        command = ["export", str(tmp_path / "model"), "--recipe", "out/cpu-x86/recipe.toml"]
        assert main([*command, "-o", str(tmp_path / "o")]) == 2
        assert "error: the model is not the one that the recipe was made with" in capsys.readouterr().err

    def test_flags_win_over_it(self, place, capsys):
        (place / "recipe.toml").write_text(
            'model = "in-recipe"\ntargets = ["arm64"]\nseed = 3\n[calibration]\nsamples = 50\ndata = "r"\n'
        )
        flags = ["other", "-t", "cpu-x86", "--samples", "70"]
        assert main(["export", *flags, "--recipe", "recipe.toml", "--dry-run", "--json"]) == 0
        recipe = json.loads(capsys.readouterr().out)["recipe"]
        assert (recipe["model"], recipe["targets"], recipe["seed"]) == ("other", ["cpu-x86"], 3)
        assert (recipe["calibration"]["samples"], recipe["calibration"]["data"]) == (70, "r")


class TestPrinting:
    def test_piped_progress_is_plain_lines_and_no_control_characters(self, run, factory_model):
        ran = run(*factory_model)
        assert ran.code == 0, ran.err
        assert ran.said == []
        assert [line.split("] ")[1].split(":")[0] for line in ran.err.splitlines()] == [
            *("load", "load", "export", "export", "optimize", "calibrate", "quantize", "validate", "package")
        ]
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", ran.out + ran.err)
        assert "Packages: out/cpu-x86\nReport:   out/report.html\n" in ran.out

    def test_json_is_all_there_is_on_standard_output(self, run, factory_model):
        ran = run(*factory_model, "--json")
        assert (ran.code, ran.err) == (0, "")
        summary = json.loads(ran.out)
        assert summary["packages"] == ["out/cpu-x86"]
        assert summary["targets"][0]["verdict"]["passed"] is True
        assert summary["targets"] == json.loads(Path("out/report.json").read_text())["targets"]

    def test_the_best_form_is_chosen_from_a_table_and_the_choice_is_said(self, run, factory_model):
        ran = run(*factory_model, "--ship", "best")
        assert ran.code == 0, ran.err
        assert "Forms for cpu-x86" in ran.out
        assert all(form in ran.out for form in ("fp32 as exported", "dynamic int8", "static int8"))
        assert "cpu-x86: Which form is fastest cannot be decided here" in ran.out

    def test_quiet_prints_nothing(self, run, factory_model):
        ran = run(*factory_model, "-q")
        assert (ran.code, ran.out, ran.err) == (0, "", "")

    def test_verbose_prints_every_step_and_what_it_left_alone(self, run, factory_model):
        ran = run(*factory_model, "-v", "--exclude", "*layer*")
        assert ran.code == 0, ran.err
        for step in ("load/factory", "export/torch.onnx", "export/float-parity", "quantize/calibrate"):
            assert f"  {step}: " in ran.out
        assert re.search(r"left alone: .*layer", ran.out)

    def test_a_dry_run_prints_the_plan_and_loads_nothing_heavy(self, place):
        program = f"""
import sys
from edgekit.__main__ import main
code = main(["export", "no/such/model", "-t", "cpu-x86", "-t", "arm64", "-o", "out", "--dry-run"])
print("LOADED", [name for name in {HEAVY!r} if name in sys.modules], code)
"""
        result = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[-1] == "LOADED [] 0"
        assert "NO DATA GIVEN" in result.stdout
        assert "package in out/arm64" in result.stdout
        assert "# Target cpu-x86, resolved" in result.stdout
        assert not (place / "out").exists()

    def test_a_dry_run_refuses_what_the_run_would_refuse_at_once(self, run):
        ran = run("export", "model", "-t", "cpu-x86", "-t", "cpu-x86", "--dry-run")
        assert ran.code == 2
        assert "given twice" in ran.err
        assert run("export", "model", "-t", "arm64", "--task", "generik", "--dry-run").code == 2


class TestGates:
    def test_a_loss_that_is_not_allowed_fails_the_gate_that_it_stands_for(self, run, factory_model):
        assert run(*factory_model, "--max-drop", "1.5").code == 2
        ran = run(*factory_model, "--max-drop", "0.000001")
        assert ran.code == 1
        assert any("sqnr_db is" in line and "120" in line for line in ran.said)

    def test_a_gate_that_fails_ends_with_1_and_a_report_and_no_package(
        self, run, factory_model, place, arrays
    ):
        shutil.copytree(arrays / "out", place / "out")
        before = files_of(place / "out")
        ran = run(*factory_model, "--force", "--gate", "sqnr_db=200")
        assert ran.code == 1
        assert ran.out == ""
        assert ran.said[0] == "error: a gate failed, so no package was written:"
        assert any("sqnr_db is" in line and "200" in line for line in ran.said)
        assert "out.failed/report.html" in ran.said[-1]
        assert files_of(place / "out") == before
        assert set(files_of(place / "out.failed")) == {"report.html", "report.json"}
        verdict = json.loads((place / "out.failed/report.json").read_text())["targets"][0]["verdict"]
        assert verdict["passed"] is False
        assert list((place / "scratch").glob("edgekit*")) == []

    def test_a_gate_that_the_data_cannot_measure_is_refused(self, run, factory_model, place):
        ran = run(*factory_model, "--gate", "max_relative_error.nothing=0.5")
        assert ran.code == 2
        assert "error: the gate 'max_relative_error.nothing' was not measured" in ran.err
        assert "Did you mean 'max_relative_error.output'?" in ran.err
        assert not (place / "out").exists()

    def test_values_that_are_not_finite_fail_and_still_make_strict_json(
        self, run, factory_model, place, monkeypatch
    ):
        from edgekit import forms

        sound = forms.make_static

        def overflowing(*arguments):
            made = sound(*arguments)
            path = made[0].only.path
            model = onnx.load(path)
            for constant in model.graph.initializer:
                if constant.data_type == onnx.TensorProto.FLOAT and list(constant.dims) == [8]:
                    constant.CopyFrom(numpy_helper.from_array(np.full(8, np.nan, np.float32), constant.name))
            onnx.save(model, path)
            return made

        monkeypatch.setattr(forms, "make_static", overflowing)
        ran = run(*factory_model)
        assert ran.code == 1
        assert "Traceback" not in ran.err
        text = (place / "out.failed/report.json").read_text()
        report = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        check = report["targets"][0]["verdict"]["checks"][0]
        assert (check["name"], check["state"]) == ("sqnr_db", "fail")
        assert check["measured"] in ("NaN", "-Infinity")
        assert "Signal to quantization noise" in (place / "out.failed/report.html").read_text()


class TestForce:
    def test_replaces_an_earlier_output_as_a_whole(self, run, factory_model, place, arrays):
        shutil.copytree(arrays / "out", place / "out")
        (place / "out" / "stale.txt").write_text("from an older run")
        assert run(*factory_model, "-q").code == 2
        assert run(*factory_model, "-q", "--force").code == 0
        assert not (place / "out" / "stale.txt").exists()
        assert [path.name for path in (place / "out").iterdir() if path.is_dir()] == ["cpu-x86"]
        assert sorted(path.name for path in place.iterdir() if "out" in path.name) == ["out"]

    def test_the_float_graph_is_kept_on_request(self, run, factory_model, place):
        assert run(*factory_model, "-q", "--keep-float").code == 0
        assert [path.name for path in (place / "out").glob("float-*.onnx")] == ["float-opset20.onnx"]


class TestOddData:
    def test_odd_lines_do_not_stop_a_run_and_a_short_model_is_timed_at_what_it_takes(
        self, place, run, tiny_bert_dir
    ):
        lines = (place / "texts.txt").read_text()
        (place / "odd.txt").write_text(
            "кот\n" + lines + "\u200b\u200b\n" + "\x01\x02\n" + "a " * 50_000 + "\n"
        )
        command = ("export", tiny_bert_dir, "-t", "cpu-x86-portable", "-c", "odd.txt", "-o", "out")
        ran = run(*command, "-v", "--max-length", 6, "--runs", 5)
        assert ran.code == 0, ran.err
        assert "load/sift: left out 2 of 64 samples" in ran.out
        assert r"left alone: text '\u200b\u200b': the tokenizer finds no token in it" in ran.out
        assert r"left alone: text '\x01\x02'" in ran.out
        (report,) = json.loads((place / "out/report.json").read_text())["targets"]
        shapes = [point["shape"] for point in report["verdict"]["latency"]]
        assert {shape.split("x")[1] for shape in shapes} == {"6"}


DATA = ("-t", "cpu-x86", "-c", "data.npz", "-o", "out", "--runs", 0)


@pytest.fixture
def factory_model(place: Path, write_layer: Callable[..., str]) -> tuple[object, ...]:
    """The command that exports a layer of the user's own in a second."""
    return ("export", write_layer(place), *DATA)
