"""Exported graphs are right, canonical, and the same on every run."""

import errno
import getpass
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import pytest
import torch
import transformers
from torch import nn

from edgekit.errors import ExportError, StorageError
from edgekit.model import ModelRef, OnnxModel, TorchModel
from edgekit.runtime import open_session
from edgekit.source import load
from edgekit.source.wrap import Selected
from edgekit.tasks.arrays import ArrayPreprocessor
from edgekit.to_onnx import export_model, record_golden
from edgekit.to_onnx import transformers_adapter as adapter

ROOT = Path(__file__).parents[2]
OPSET, IR = 20, 10
SLOW_FAMILIES = ("Roberta", "Electra", "ModernBert", "XLMRoberta", "MPNet")


def exported(folder: Path, out: Path, task: str | None = None) -> tuple[TorchModel, OnnxModel]:
    model = load(ModelRef(str(folder)), task, scratch=out)
    return model, export_model(model, out, opset=OPSET, ir_version=IR)


def token_batches(model: TorchModel) -> list[dict[str, np.ndarray]]:
    """Return batches of three sizes and four lengths, with padding."""
    rng = np.random.default_rng(0)
    batches = []
    for batch, length in ((1, 3), (2, 17), (5, 2), (3, 48)):
        inputs = {name: np.zeros((batch, length), np.int64) for name in model.input_names}
        inputs["input_ids"] = rng.integers(5, 100, (batch, length))
        inputs["attention_mask"] = (np.arange(length) < rng.integers(1, length + 1, (batch, 1))).astype(
            np.int64
        )
        batches.append(inputs)
    return batches


def assert_parity(model: TorchModel, onnx_model: OnnxModel, batches: list[dict[str, np.ndarray]]) -> None:
    golden = record_golden(model, [(inputs, None) for inputs in batches])
    for optimize in (False, True):
        session = open_session(onnx_model.only.path, optimize=optimize)
        for batch in golden.batches:
            for name, got in zip(model.output_names, session.run(None, dict(batch.inputs)), strict=True):
                np.testing.assert_allclose(got, batch.outputs[name], atol=2e-5, rtol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    ("fixture", "task"),
    [
        pytest.param("tiny_classifier_dir", None, marks=pytest.mark.slow),
        pytest.param("tiny_token_classifier_dir", None, marks=pytest.mark.slow),
        ("tiny_st_dir", None),
        pytest.param("tiny_bert_dir", "generic", marks=pytest.mark.slow),
    ],
)
def test_a_text_model_is_right_at_every_batch_and_length(
    fixture: str, task: str | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model, onnx_model = exported(request.getfixturevalue(fixture), tmp_path, task)
    assert_parity(model, onnx_model, token_batches(model))


def test_an_image_model_is_right_at_every_batch_and_its_export_prints_nothing(
    tiny_vit_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, onnx_model = exported(tiny_vit_dir, tmp_path)
    assert capfd.readouterr() == ("", "")
    rng = np.random.default_rng(0)
    batches = [{"pixel_values": rng.standard_normal((n, 3, 16, 16), np.float32)} for n in (1, 2, 5)]
    assert_parity(model, onnx_model, batches)


@pytest.mark.parametrize(
    "class_name", ["DistilBert", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_FAMILIES)]
)
def test_other_families_are_right(class_name: str, tiny_bert_dir: Path, tmp_path: Path) -> None:
    """DistilBERT has no token types, RoBERTa shifts positions, ModernBERT rotates them, MPNet has buckets."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 1000, "max_position_embeddings": 66, "initializer_range": 0.3, "pad_token_id": 0}
    if class_name == "DistilBert":
        sizes |= {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    else:
        sizes |= {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
        }
    folder = tmp_path / "model"
    getattr(transformers, f"{class_name}Model")(
        getattr(transformers, f"{class_name}Config")(**sizes)
    ).eval().save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_bert_dir).save_pretrained(folder)
    model, onnx_model = exported(folder, tmp_path / "out")
    assert_parity(model, onnx_model, token_batches(model))


@pytest.fixture(scope="module")
def bert(tiny_bert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchModel, OnnxModel]:
    return exported(tiny_bert_dir, tmp_path_factory.mktemp("bert"))


def test_a_base_model_is_right_at_every_batch_and_length(bert: tuple[TorchModel, OnnxModel]) -> None:
    assert_parity(*bert, token_batches(bert[0]))


@pytest.fixture(scope="module")
def proto(bert: tuple[TorchModel, OnnxModel]) -> onnx.ModelProto:
    return onnx.load(bert[1].only.path)


def test_the_signature_has_the_fields_names_and_readable_axes(bert: tuple[TorchModel, OnnxModel]) -> None:
    signature = bert[1].only.signature
    assert [(s.name, s.dtype, s.shape) for s in signature.inputs] == [
        (name, "int64", ("batch", "sequence")) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    assert [(s.name, s.dtype, s.shape) for s in signature.outputs] == [
        ("last_hidden_state", "float32", ("batch", "sequence", 32))
    ]


@pytest.mark.parametrize(("opset", "ir_version"), [pytest.param(18, 8, marks=pytest.mark.slow), (21, 10)])
def test_opset_and_ir_version_are_what_was_asked_for(
    opset: int, ir_version: int, tiny_vit_dir: Path, tmp_path: Path
) -> None:
    model = load(ModelRef(str(tiny_vit_dir)), None, scratch=tmp_path)
    out = export_model(model, tmp_path, opset=opset, ir_version=ir_version)
    proto = onnx.load(out.only.path)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": opset}
    assert (proto.ir_version, out.ir_version, out.opset) == (ir_version, ir_version, opset)
    onnx.checker.check_model(proto, full_check=True)
    assert_parity(model, out, [model.example_inputs])


def test_an_opset_below_what_the_exporter_writes_is_refused(
    bert: tuple[TorchModel, OnnxModel], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="operator set 17"):
        export_model(bert[0], tmp_path, opset=17, ir_version=8)


def test_the_graph_passes_the_full_check_and_every_inner_shape_is_known(proto: onnx.ModelProto) -> None:
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    known = {value.name for value in proto.graph.value_info if value.type.tensor_type.HasField("shape")}
    known |= {value.name for value in proto.graph.output}
    assert {name for node in proto.graph.node for name in node.output} <= known


def test_weights_have_their_parameters_names_and_values(
    bert: tuple[TorchModel, OnnxModel], proto: onnx.ModelProto
) -> None:
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    parameters = dict(bert[0].module.model.named_parameters())
    named = {name: value for name, value in weights.items() if name in parameters}
    assert set(parameters) - set(named) == {"pooler.dense.weight", "pooler.dense.bias"}
    for name, value in named.items():
        expected = parameters[name].detach().numpy()
        assert np.array_equal(value, expected) or np.array_equal(value, expected.T), name
    assert all(
        value.ndim < 2 or name in parameters or name.startswith("embeddings.")
        for name, value in weights.items()
    )


def test_nodes_are_named_after_their_module_and_no_name_occurs_twice(proto: onnx.ModelProto) -> None:
    names = [node.name for node in proto.graph.node]
    assert "encoder.layer.1.attention.self.query/MatMul" in names
    assert len(set(names)) == len(names)
    outputs = [name for node in proto.graph.node for name in node.output]
    assert len(set(outputs)) == len(outputs)
    assert all(not name.startswith(("model.", "val_", "node_")) for name in [*names, *outputs])


def test_nothing_is_left_of_metadata_functions_and_unused_parts(proto: onnx.ModelProto) -> None:
    graph = proto.graph
    parts = [proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    assert not any(part.metadata_props or part.doc_string for part in parts)
    assert not proto.functions
    used = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used
    assert (proto.producer_name, graph.name) == ("edgekit", "model")


def test_initializers_are_in_the_order_of_their_first_use(proto: onnx.ModelProto) -> None:
    names = {tensor.name for tensor in proto.graph.initializer}
    used = dict.fromkeys(name for node in proto.graph.node for name in node.input if name in names)
    assert [tensor.name for tensor in proto.graph.initializer] == list(used)


def test_the_record_says_what_was_done(bert: tuple[TorchModel, OnnxModel]) -> None:
    _, record = bert[1].history
    assert (record.stage, record.step) == ("export", "transformers.exporters")
    assert record.facts["opset"] == OPSET
    assert record.facts["ops"]["LayerNormalization"] == 5
    assert record.bytes_after == bert[1].only.path.stat().st_size


EXPORT_IN_PROCESS = """
import sys
from pathlib import Path
from edgekit.to_onnx import export_model
from edgekit.model import ModelRef
from edgekit.source import load
out = Path(sys.argv[2])
for spec in sys.argv[1].split(","):
    model = load(ModelRef(spec), None, scratch=out)
    export_model(model, out / Path(spec).name.replace(":", "_"), opset=20, ir_version=10)
"""

CNN = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    body.extend(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)))
    return body, torch.zeros(2, 1, 8, 8)
"""


def test_another_run_makes_the_same_bytes_which_name_nothing_of_the_machine(
    bert: tuple[TorchModel, OnnxModel], tiny_bert_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "somewhere"
    there.mkdir()
    (there / "cnn_of_test.py").write_text(CNN)
    subprocess.run(
        [sys.executable, "-c", EXPORT_IN_PROCESS, f"{tiny_bert_dir},cnn_of_test:make", str(there)],
        cwd=there,
        env={
            **os.environ,
            "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "OMP_NUM_THREADS": "1",
        },
        check=True,
    )
    monkeypatch.chdir(there)
    cnn = export_model(
        load(ModelRef("cnn_of_test:make"), None, scratch=tmp_path), tmp_path, opset=OPSET, ir_version=IR
    )
    for here, name in ((bert[1], tiny_bert_dir.name), (cnn, "cnn_of_test_make")):
        data = here.only.path.read_bytes()
        assert data == (there / name / "float.onnx").read_bytes()
        for secret in (
            str(Path.home()),
            str(tmp_path),
            str(ROOT),
            "site-packages",
            ".py",
            getpass.getuser() + "/",
        ):
            assert secret.encode() not in data, secret


def test_an_unknown_version_of_transformers_takes_the_plain_road_and_says_so(
    tiny_classifier_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "NEWEST", (5, 12))
    model, onnx_model = exported(tiny_classifier_dir, tmp_path)
    record = onnx_model.history[-1]
    assert record.step == "torch.onnx"
    assert [skip.what for skip in record.skipped] == ["transformers.exporters"]
    assert "outside the tested versions" in record.skipped[0].why
    assert_parity(model, onnx_model, token_batches(model))


@pytest.mark.parametrize(
    ("version", "served"),
    [
        ("5.12.0", False),
        ("5.13.0", True),
        ("5.23.4", True),
        ("5.24.0.dev0", False),
        ("6.0.0", False),
        ("odd", False),
    ],
)
def test_the_adapter_serves_the_versions_it_was_tested_with(version: str, served: bool) -> None:
    assert (adapter.why_not(version) is None) is served


def test_a_failure_of_transformers_own_exporter_takes_the_plain_road_and_says_so(
    tiny_vit_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: TorchModel, opset: int) -> None:
        raise RuntimeError("moved\nagain")

    monkeypatch.setattr(adapter, "export_with_transformers", fail)
    _, onnx_model = exported(tiny_vit_dir, tmp_path)
    assert onnx_model.history[-1].skipped[0].why == "it failed: RuntimeError: moved again"


class Tied(nn.Module):
    """Gives an input, one value twice, and a weight that two layers share."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, 4)
        self.out = nn.Linear(4, words, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: torch.Tensor, bias: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.out(self.embed(ids)) + bias[:, None]
        return {"scores": scores, "again": scores, "bias": bias, "weight_free": scores.sum(-1)}


def tied(words: int = 11) -> TorchModel:
    """Return it with token numbers and scores as inputs."""
    torch.manual_seed(0)
    outputs = {"scores": "scores", "again": "again", "bias_out": "bias", "weight_free": "weight_free"}
    return TorchModel(
        module=Selected(Tied(words), outputs, {}).eval(),
        task="generic",
        input_names=("ids", "bias"),
        output_names=tuple(outputs),
        example_inputs={"ids": np.arange(6).reshape(2, 3), "bias": np.ones((2, words), np.float32)},
        dynamic_axes={"ids": {0: "batch", 1: "time"}, "bias": {0: "batch"}},
        preprocessor=ArrayPreprocessor(()),
        from_transformers=False,
        name="tied",
    )


def test_weights_above_the_limit_of_protobuf_go_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.graph._MAX_INLINE_BYTES", 1000)
    model = tied(words=10_000)
    onnx_model = export_model(model, tmp_path, opset=OPSET, ir_version=IR)
    data = tmp_path / "float.onnx.data"
    assert data.stat().st_size >= 4 * 4 * 10_000 > onnx_model.only.path.stat().st_size
    assert onnx_model.file_bytes == data.stat().st_size + onnx_model.only.path.stat().st_size
    assert_parity(model, onnx_model, [model.example_inputs])


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: object, file: BinaryIO) -> None:
        file.write(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edgekit.graph.write_model", full)
    with pytest.raises(StorageError, match="No space left"):
        export_model(tied(), tmp_path / "out", opset=OPSET, ir_version=IR)
    assert list((tmp_path / "out").iterdir()) == []


def test_outputs_that_are_inputs_or_the_same_value_stay_apart(tmp_path: Path) -> None:
    model = tied()
    onnx_model = export_model(model, tmp_path, opset=OPSET, ir_version=IR)
    onnx.checker.check_model(onnx.load(onnx_model.only.path), full_check=True)
    assert [spec.name for spec in onnx_model.only.signature.outputs] == list(model.output_names)
    batches = [
        {"ids": np.zeros((n, t), np.int64), "bias": np.full((n, 11), 2, np.float32)}
        for n, t in ((1, 1), (4, 7))
    ]
    assert_parity(model, onnx_model, batches)
