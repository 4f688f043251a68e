"""Every mistake of a user gets one clear line, the right exit code, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgekit import pipeline
from edgekit.recipe import recipe_from_table
from tests.limits import largest_file

ROOT = Path(__file__).parents[2]
Refused = Callable[..., str]


@pytest.fixture
def heard():
    """Let Ctrl-C be heard, also where these tests run in the background of a shell that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def factory(
    place: Path, write_layer: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Return a function that writes a module with a factory, and 40 samples as data.npz; it gives MODEL."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return partial(write_layer, place)


def export(model: object, *more: object, data: str = "texts.txt") -> tuple[object, ...]:
    return ("export", model, "-t", "cpu-x86", "-c", data, "-o", "out", "--runs", 0, *more)


class TestData:
    def test_none_at_all(self, refused: Refused, tiny_bert_dir: Path):
        said = refused("export", tiny_bert_dir, "-t", "cpu-x86", "-o", "out")
        assert "static quantization needs real data and none was given" in said
        assert "--calibration" in said

    def test_a_file_that_is_missing(self, refused: Refused, tiny_bert_dir: Path):
        assert "data not found: none.txt" in refused(*export(tiny_bert_dir, data="none.txt"))

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("empty.txt", "", "empty.txt is empty"),
            ("blank.txt", "\n  \n\t\n", "blank.txt is empty"),
            ("few.txt", "one\ntwo\nthree\n", "few.txt has 3 distinct texts; calibration needs at least 32"),
            ("same.txt", "all the same\n" * 500, "all 500 texts of same.txt are the same"),
            ("two.txt", "one\ntwo\n" * 99, "two.txt has 2 distinct texts among 198"),
            ("latin.txt", b"caf\xe9\n" * 40, "latin.txt, line 1: not UTF-8"),
            ("data.xlsx", "x", "the extension '.xlsx' is unknown"),
            ("bad.jsonl", '{"text": "a"}\n{"text": \n', "bad.jsonl, line 2: not JSON"),
        ],
        ids=lambda value: value if isinstance(value, str) and value.count(".") == 1 else "",
    )
    def test_a_file_that_is_no_use(self, refused, place, tiny_bert_dir, name, content, message):
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        assert message in refused(*export(tiny_bert_dir, data=name))

    @pytest.mark.parametrize("suffix", ["csv", "jsonl"])
    def test_a_column_that_is_not_there_names_those_that_are(self, refused, place, tiny_bert_dir, suffix):
        rows = [{"title": f"text {n}", "stars": "5"} for n in range(40)]
        lines = [json.dumps(row) for row in rows]
        if suffix == "csv":
            lines = ["title,stars", *(",".join(row.values()) for row in rows)]
        (place / f"data.{suffix}").write_text("\n".join(lines))
        said = refused(*export(tiny_bert_dir, "--column", "titel", data=f"data.{suffix}"))
        assert "no column 'titel'" in said
        assert "Did you mean 'title'? Known: stars, title." in said

    def test_a_validation_file_that_is_the_calibration_file(self, refused, tiny_bert_dir):
        said = refused(*export(tiny_bert_dir, "--validation", "texts.txt"))
        assert "0 distinct texts that are not used for calibration" in said

    def test_a_validation_file_that_is_a_copy_of_the_calibration_file(self, refused, place, tiny_bert_dir):
        (place / "copy.txt").write_bytes((place / "texts.txt").read_bytes())
        said = refused(*export(tiny_bert_dir, "--validation", "copy.txt"))
        assert "copy.txt has 0 distinct texts that are not used for calibration (60 are)" in said

    def test_text_for_an_image_model(self, refused, tiny_vit_dir):
        said = refused(*export(tiny_vit_dir))
        assert "texts.txt: the data is text, the model wants images" in said

    def test_images_for_a_text_model(self, refused, place, tiny_bert_dir):
        from PIL import Image

        (place / "images").mkdir()
        for index in range(20):
            Image.new("RGB", (4, 4), (index, 0, 0)).save(place / "images" / f"{index}.png")
        said = refused(*export(tiny_bert_dir, data="images"))
        assert "images: the data is images, the model wants text" in said

    def test_images_that_are_none(self, refused, place, tiny_vit_dir):
        (place / "images").mkdir()
        for index in range(20):
            (place / "images" / f"{index}.png").write_bytes(b"not an image %d" % index)
        assert "cannot decode the image images/" in refused(*export(tiny_vit_dir, data="images"))

    def test_labels_that_the_model_does_not_know(self, refused, place, tiny_classifier_dir):
        rows = [f"text number {n},{'positive' if n % 2 else 'negativ'}" for n in range(40)]
        (place / "data.csv").write_text("\n".join(["text,label", *rows]))
        said = refused(*export(tiny_classifier_dir, "--label-column", "label", data="data.csv"))
        assert "data.csv: the model knows no class 'negativ'" in said
        assert "Did you mean 'negative'?" in said

    def test_a_file_in_another_script(self, refused, place, tiny_bert_dir):
        (place / "russian.txt").write_text("".join(f"кот{'о' * n}\n" for n in range(60)), encoding="utf-8")
        said = refused(*export(tiny_bert_dir, data="russian.txt"))
        assert "russian.txt: " in said
        assert "texts have no token that the model knows, e.g. 'кот" in said

    def test_arrays_that_do_not_fit(self, refused, place, factory):
        model = factory()
        np.savez(place / "narrow.npz", x=np.arange(280, dtype=np.float32).reshape(40, 7))
        said = refused(*export(model, data="narrow.npz"))
        assert "narrow.npz: input 'x': a sample has shape (7,), the model takes (8,)" in said


class TestModel:
    def test_none_given(self, refused):
        assert "Missing argument 'MODEL'" in refused(
            "export", "-t", "cpu-x86", "-c", "texts.txt", "-o", "out"
        )

    def test_a_directory_that_is_no_model(self, refused, place):
        (place / "empty").mkdir()
        assert "the directory empty is no model" in refused(*export("empty"))

    def test_a_file(self, refused):
        assert "texts.txt is a file, not a model directory" in refused(*export("texts.txt"))

    def test_a_graph(self, refused, place):
        (place / "model.onnx").write_bytes(b"x")
        assert "model.onnx is a graph already" in refused(*export("model.onnx"))

    def test_a_package(self, refused, place):
        (place / "package").mkdir()
        for name in ("manifest.json", "model.onnx", "config.json"):
            (place / "package" / name).write_text("{}")
        assert "package is a package that edgekit made already" in refused(*export("package"))

    def test_weights_that_are_quantized_already(self, refused, copy_of, tiny_bert_dir):
        folder = copy_of(tiny_bert_dir)
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
        (folder / "config.json").write_text(json.dumps(config))
        assert "copy holds weights that are quantized already" in refused(*export("copy"))

    def test_a_path_that_is_not_there(self, refused):
        assert "no model at './models/minilm'" in refused(*export("./models/minilm"))

    def test_a_hub_id_without_a_network(self, refused):
        begin = time.perf_counter()
        said = refused(*export("sentence-transformers/no-such-model"), code=3)
        assert time.perf_counter() - begin < 10
        assert "the Hugging Face Hub cannot be reached" in said

    @pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
    def test_safetensors_that_are_cut_off(self, refused, copy_of, tiny_bert_dir, keep):
        weights = copy_of(tiny_bert_dir) / "model.safetensors"
        size = keep if isinstance(keep, int) else int(weights.stat().st_size * keep)
        os.truncate(weights, size)
        said = refused(*export("copy"))
        assert "copy/model.safetensors is" in said
        assert "truncated" in said

    def test_safetensors_that_are_damaged(self, refused, copy_of, tiny_bert_dir):
        weights = copy_of(tiny_bert_dir) / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[8:40] = b"\xff" * 32
        weights.write_bytes(content)
        assert "copy/model.safetensors is corrupt" in refused(*export("copy"))

    def test_weights_that_are_not_finite(self, refused, copy_of, tiny_bert_dir):
        from safetensors.numpy import load_file, save_file

        path = copy_of(tiny_bert_dir) / "model.safetensors"
        tensors = load_file(path)
        tensors["encoder.layer.1.output.dense.weight"][3, 4] = np.nan
        save_file(tensors, path, {"format": "pt"})
        said = refused(*export("copy"))
        assert "the weights hold NaN or infinity: 1 of 2048 values of encoder.layer.1" in said

    def test_a_pickle_checkpoint(self, refused, copy_of, tiny_bert_dir):
        _as_pickle(copy_of(tiny_bert_dir))
        said = refused(*export("copy"))
        assert "only a pickle checkpoint (pytorch_model.bin)" in said
        assert "--allow-pickle" in said

    def test_a_pickle_checkpoint_that_is_allowed_loads(self, refused, copy_of, tiny_bert_dir):
        _as_pickle(copy_of(tiny_bert_dir))
        # A gate that only the loaded model can refuse shows that loading went well.
        said = refused(*export("copy", "--allow-pickle", "--gate", "top1_agreement=1"))
        assert "unknown gate 'top1_agreement'" in said

    @pytest.mark.parametrize("allowed", [False, True])
    def test_a_pickle_that_would_run_code_never_does(self, refused, place, copy_of, tiny_bert_dir, allowed):
        folder = copy_of(tiny_bert_dir)
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Malice(str(place / "marker"))))
        said = refused(*export("copy", *(["--allow-pickle"] if allowed else [])))
        assert "pytorch_model.bin" in said
        assert not (place / "marker").exists()

    def test_remote_code(self, refused, place, copy_of, tiny_bert_dir):
        folder = copy_of(tiny_bert_dir)
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "mine", "auto_map": {"AutoModel": "modeling_mine.Mine"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "modeling_mine.py").write_text(f"open({str(place / 'marker')!r}, 'w')")
        assert "needs remote code (auto_map in config.json)" in refused(*export("copy"))

    def test_no_tokenizer(self, refused, copy_of, tiny_bert_dir):
        for file in copy_of(tiny_bert_dir).glob("*token*"):
            file.unlink()
        assert "copy has no tokenizer (tokenizer.json or vocab.txt)" in refused(*export("copy"))

    def test_a_damaged_config(self, refused, copy_of, tiny_bert_dir):
        (copy_of(tiny_bert_dir) / "config.json").write_text('{"model_type": "be')
        assert "cannot read copy/config.json" in refused(*export("copy"))

    def test_a_file_without_permission(self, refused, copy_of, tiny_bert_dir):
        weights = copy_of(tiny_bert_dir) / "model.safetensors"
        content = weights.read_bytes()
        weights.unlink()
        weights.mkdir()  # reading fails also for root
        said = refused(*export("copy"), code=3)
        assert "copy/model.safetensors: Is a directory" in said
        assert len(content)

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("no_such_module:make", "there is no Python module 'no_such_module'"),
            ("json:make", "module json has no 'make'"),
            ("json:dumps", "json:dumps() failed: TypeError"),
        ],
    )
    def test_a_factory_that_is_none(self, refused, spec, message):
        assert message in refused(*export(spec))

    def test_a_factory_that_ends_the_program(self, refused, factory):
        said = refused(*export(factory("exit('gone')"), data="data.npz"))
        assert "SystemExit: gone" in said

    def test_an_op_that_has_no_onnx_form_is_named_with_its_module(self, refused, factory):
        said = refused(*export(factory("torch.special.airy_ai(self.layer(x))"), data="data.npz"))
        assert "the op aten.special_airy_ai.default has no ONNX form" in said
        assert "Tiny" in said

    def test_outputs_that_are_not_the_same_twice(self, refused, factory):
        said = refused(*export(factory("self.layer(x) + torch.rand(1)"), data="data.npz"))
        assert "two runs of the model on the same inputs differ in output 'output'" in said

    def test_outputs_that_are_not_finite(self, refused, factory):
        said = refused(*export(factory("torch.log(self.layer(x) - 1e9)"), data="data.npz"))
        assert "output 'output' holds NaN or infinity (8 of 8 values)" in said


class TestRequest:
    def test_an_unknown_target_names_the_nearest(self, refused, tiny_bert_dir):
        said = refused("export", tiny_bert_dir, "-t", "cpu-x68", "-c", "texts.txt", "-o", "out")
        assert "unknown target 'cpu-x68'" in said
        assert "Did you mean 'cpu-x86'?" in said

    def test_a_target_twice(self, refused, tiny_bert_dir):
        assert "the target 'cpu-x86' is given twice" in refused(*export(tiny_bert_dir, "-t", "cpu-x86"))

    def test_no_target(self, refused, tiny_bert_dir):
        assert "Missing option '-t'" in refused("export", tiny_bert_dir, "-c", "texts.txt", "-o", "out")

    def test_no_output(self, refused, tiny_bert_dir):
        assert "Missing option '-o'" in refused("export", tiny_bert_dir, "-t", "arm64", "-c", "texts.txt")

    def test_a_key_of_a_target_file_that_is_not_one(self, refused, place, tiny_bert_dir):
        (place / "mine.toml").write_text('extends = "arm64"\n[quantization]\nper_chanel = true\n')
        said = refused("export", tiny_bert_dir, "-t", "./mine.toml", "-c", "texts.txt", "-o", "out")
        assert "target 'mine': unknown key 'quantization.per_chanel'" in said
        assert "Did you mean 'per_channel'?" in said

    def test_a_target_file_that_is_no_toml(self, refused, place, tiny_bert_dir):
        (place / "mine.toml").write_text("[quantization\n")
        said = refused("export", tiny_bert_dir, "-t", "./mine.toml", "-c", "texts.txt", "-o", "out")
        assert "mine.toml is not valid TOML" in said

    def test_a_key_of_a_recipe_that_is_not_one(self, refused, place, tiny_bert_dir):
        (place / "recipe.toml").write_text("[quantize]\nsmothing = true\n")
        said = refused(*export(tiny_bert_dir, "--recipe", "recipe.toml"))
        assert "recipe recipe.toml: unknown key 'quantize.smothing'" in said
        assert "Did you mean 'smoothing'?" in said

    def test_a_recipe_that_is_missing(self, refused, tiny_bert_dir):
        said = refused(*export(tiny_bert_dir, "--recipe", "none.toml"))
        assert "recipe not found: none.toml" in said

    def test_an_unknown_task_names_the_nearest(self, refused, tiny_bert_dir):
        said = refused(*export(tiny_bert_dir, "--task", "text-clasification"))
        assert "unknown task 'text-clasification'" in said
        assert "Did you mean 'text-classification'?" in said

    def test_a_task_that_the_checkpoint_was_not_trained_for(self, refused, tiny_bert_dir):
        said = refused(*export(tiny_bert_dir, "--task", "text-classification"))
        assert "the checkpoint has no weights for classifier." in said

    def test_a_task_that_the_architecture_cannot_do(self, refused, tiny_bert_dir):
        said = refused(*export(tiny_bert_dir, "--task", "image-classification"))
        assert "a model of type 'bert' cannot do the task 'image-classification'" in said

    @pytest.mark.parametrize(
        ("gate", "message"),
        [
            ("cosine_mena=0.9", "unknown gate 'cosine_mena'"),
            ("cosine_mean=high", "'cosine_mean=high' is not NAME=NUMBER"),
            ("cosine_mean", "'cosine_mean' is not NAME=NUMBER"),
            ("=0.9", "'=0.9' is not NAME=NUMBER"),
            ("cosine_mean=nan", "gates.cosine_mean"),
        ],
    )
    def test_a_gate_that_is_none(self, refused, tiny_bert_dir, gate, message):
        said = refused(*export(tiny_bert_dir, "--gate", gate))
        assert message in said
        assert "mena" not in gate or "Did you mean 'cosine_mean'?" in said

    def test_a_gate_of_another_task(self, refused, tiny_bert_dir):
        said = refused(*export(tiny_bert_dir, "--gate", "top1_agreement=0.9"))
        assert "unknown gate 'top1_agreement'" in said
        assert "Known: clip_rate, cosine_mean" in said

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--samples", "0"), "calibration.samples"),
            (("--samples", "many"), "'many' is not a valid integer"),
            (("--seed", "-1"), "seed"),
            (("--runs", "-5"), "latency.runs"),
            (("--max-length", "0"), "model_options.max_length"),
            (("--max-length", "999"), "max_length 999 is more than the 64 positions"),
            (("--max-length", "2"), "max_length 2 leaves no room"),
            (("--percentile", "20"), "quantize.percentile"),
            (("--method", "dynamic"), "'dynamic' is not one of 'static', 'none'"),
            (("--tarlget", "x"), "No such option"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_a_value_that_cannot_be(self, refused, tiny_bert_dir, flags, message):
        assert message in refused(*export(tiny_bert_dir, *flags))

    def test_an_unknown_command_names_the_nearest(self, refused):
        said = refused("exprot", "model")
        assert "unknown command 'exprot'. Did you mean 'export'?" in said


class TestOutput:
    def test_a_folder_that_is_not_empty(self, refused, place, tiny_bert_dir):
        (place / "out").mkdir()
        (place / "out" / "mine.txt").write_text("keep me")
        said = refused(*export(tiny_bert_dir))
        assert "the output folder out exists and is not empty" in said
        assert "--force" in said

    def test_a_folder_that_is_no_earlier_output_is_kept_also_with_force(self, refused, place, tiny_bert_dir):
        (place / "out").mkdir()
        (place / "out" / "mine.txt").write_text("keep me")
        assert "no earlier output" in refused(*export(tiny_bert_dir, "--force"))

    def test_a_file(self, refused, place, tiny_bert_dir):
        (place / "out").write_text("a file")
        assert "the output out exists and is not a folder" in refused(*export(tiny_bert_dir, "--force"))

    def test_a_place_below_a_file(self, refused, tiny_bert_dir):
        said = refused(*export(tiny_bert_dir, "-o", "texts.txt/out"), code=3)
        assert "cannot write texts.txt/out" in said
        assert "is not a folder" in said

    @pytest.mark.parametrize("output", [".", "..", "deep/..", "/"])
    def test_the_working_directory_and_what_holds_it(self, refused, place, tiny_bert_dir, output):
        (place / "deep").mkdir()
        assert "error: the output" in refused(*export(tiny_bert_dir, "-o", output, "--force"))

    @pytest.mark.parametrize("flag", ["model", "data"])
    def test_a_folder_that_holds_the_input(self, refused, place, copy_of, tiny_bert_dir, flag):
        copy_of(tiny_bert_dir)
        (place / "copy" / "report.json").write_text("{}")
        (place / "copy" / "texts.txt").write_bytes((place / "texts.txt").read_bytes())
        model, data = ("copy", "texts.txt") if flag == "model" else (tiny_bert_dir, "copy/texts.txt")
        said = refused(*export(model, "-o", "copy", "--force", data=data))
        assert "the output folder copy holds the input copy" in said

    def test_a_folder_without_permission(self, refused, place, factory):
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        (place / "locked").mkdir(mode=0o500)
        assert "cannot write locked/out" in refused(
            *export(factory(), "-o", "locked/out", data="data.npz"), code=3
        )

    def test_a_folder_of_someone_else_where_the_failed_report_would_go(self, refused, place, tiny_bert_dir):
        (place / "out.failed").mkdir()
        (place / "out.failed" / "mine.txt").write_text("keep me")
        assert "out.failed is where the report goes" in refused(*export(tiny_bert_dir))


class TestMachine:
    @pytest.mark.parametrize(
        ("limit_bytes", "where"), [(1_000, "scratch"), (12_000, ".out.")], ids=["TMPDIR", "output"]
    )
    def test_a_full_disk(self, refused, place, factory, limit_bytes, where):
        model = factory()
        with largest_file(limit_bytes):
            said = refused(*export(model, data="data.npz"), code=3)
        assert "error: cannot write" in said
        assert where in said
        assert os.strerror(errno.EFBIG) in said
        assert "Free space" in said

    @pytest.mark.parametrize("stage", ["load", "calibrate", "validate", "package"])
    def test_ctrl_c_at_a_stage_leaves_nothing(self, place, factory, contents_of, stage, heard):
        table = {"model": factory(), "targets": ["cpu-x86"], "calibration": {"data": "data.npz"}}

        def interrupting(at: str, message: str, fraction: float | None) -> None:
            if at == stage:
                signal.raise_signal(signal.SIGINT)

        before = contents_of(place)
        with pytest.raises(KeyboardInterrupt):
            pipeline.export(recipe_from_table(table), place / "out", progress=interrupting)
        assert contents_of(place) == before

    @pytest.mark.parametrize("stage", ["load: loading", "validate"])
    def test_ctrl_c_on_a_terminal_ends_with_130_and_one_line(self, place, factory, contents_of, stage):
        model = factory()
        before = contents_of(place)
        process = subprocess.Popen(
            [
                sys.executable,
                "-B",
                "-m",
                "edgekit",
                *map(str, export(model, "--runs", 10**6, data="data.npz")),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if stage in line:
                time.sleep(1.0)
                os.killpg(process.pid, signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130, rest
        assert rest.strip().splitlines()[-1] == "error: interrupted; nothing was written"
        assert "Traceback" not in rest
        assert contents_of(place) == before

    def test_a_hub_that_refuses_the_connection(self, place):
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        environment |= {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
        result = subprocess.run(
            [sys.executable, "-m", "edgekit", *map(str, export("someone/some-model", "-q"))],
            env={**environment, "HF_HOME": str(place / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 3
        first, hint = result.stderr.splitlines()
        assert first.startswith(
            "error: no model 'someone/some-model': no such directory, and the Hugging Face"
        )
        assert "give its directory" in hint


class _Malice:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (self.marker, "w"))


def _as_pickle(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
