"""Tiny models that every room's tests may use; made once per session, random weights with a fixed seed."""

from __future__ import annotations

import gc
import json
import os
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from benchmarks import tiny

os.environ["HF_HUB_OFFLINE"] = "1"  # no test goes to the network
# Exports run a target's runners where they are installed. Only the tests of the runners are about that, and
# only they see the kits of this machine (`tests/runners/conftest.py`). Workers inherit what was set first.
os.environ.setdefault("EDGEKIT_TEST_KITS", os.environ.get("EDGEKIT_CACHE", ""))
os.environ["EDGEKIT_CACHE"] = "/nonexistent/edgekit-cache"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # torch, beside as many other processes as there are cores

# How long a test takes is the machine's business: no property fails for it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

WORDS = """
the a of and to in is it that was for on are as with his they be at one have this from or had by but what
some we can out other were all there when up use your how said an each she which do their time if will way
about many then them would write like so these her long make thing see him two has look more day could go
come did my sound no most number who over know water than call first people may down side been now find any
new work part take get place made live where after back little only round man year came show every good me
give our under name very through just form much great think say help low line before turn cause same mean
differ move right boy old too does tell sentence set three want air well also play small end put home read
hand port large spell add even land here must big high such follow act why ask men change went light kind
off need house picture try us again animal point mother world near build self earth father head stand own
page should country found answer school grow study still learn plant cover food sun four thought let keep
eye never last door between city tree cross since hard start might story saw far sea draw left late run
while press close night real life few stop open seem together next white children begin got walk example
ease paper often always music those both mark book letter until mile river car feet care second group carry
took rain eat room friend began idea fish mountain north once base hear horse cut sure watch color face wood
main quick brown fox jumps lazy dog cat bird happy sad film movie terrible wonderful boring best worst love
hate
"""


@pytest.fixture(scope="module", autouse=True)
def settled_heap() -> Iterator[None]:
    """Hide what a module leaves loaded from the garbage collector.

    edgekit collects garbage when it lets go of a graph. Beside the millions of objects that torch and
    transformers hold, every such call would take a second.
    """
    yield
    gc.collect()
    gc.freeze()


def tokenizer_to(folder: Path) -> int:
    """Save a WordPiece tokenizer of common English words and return the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    letters = string.ascii_lowercase + string.digits
    pieces = [*tiny.SPECIAL, *string.punctuation, *letters]
    pieces += [f"##{letter}" for letter in letters] + ["##s", "##ed", "##ing", "##er", "##ly"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, *WORDS.split()]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tiny.save_tokenizer(tokenizer, folder, max_length=64)


@pytest.fixture(scope="session")
def make_bert(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that saves a tiny random BERT of some transformers class, with its tokenizer."""

    def make(class_name: str = "BertModel", **config: object) -> Path:
        import torch
        import transformers

        folder = tmp_path_factory.mktemp(class_name)
        torch.manual_seed(0)
        settings = transformers.BertConfig(vocab_size=tokenizer_to(folder), **{**tiny.ENCODER, **config})
        tiny.roughen(getattr(transformers, class_name)(settings)).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_bert_dir(make_bert: Callable[..., Path]) -> Path:
    """A BertModel for feature extraction, with a pooler."""
    return make_bert()


@pytest.fixture(scope="session")
def tiny_classifier_dir(make_bert: Callable[..., Path]) -> Path:
    """A BertForSequenceClassification with the labels `negative` and `positive`."""
    return make_bert("BertForSequenceClassification", **tiny.labelled("negative", "positive"))


@pytest.fixture(scope="session")
def tiny_token_classifier_dir(make_bert: Callable[..., Path]) -> Path:
    """A BertForTokenClassification with three labels."""
    return make_bert("BertForTokenClassification", **tiny.labelled("O", "B-NAME", "I-NAME"))


@pytest.fixture(scope="session")
def tiny_st_dir(tmp_path_factory: pytest.TempPathFactory, tiny_bert_dir: Path) -> Path:
    """A sentence-transformers directory: transformer, mean pooling, dense, normalize."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import import_from_string

    def module(name: str, *args: object, **kwargs: object) -> torch.nn.Module:
        return import_from_string(f"sentence_transformers.models.{name}")(*args, **kwargs)

    folder = tmp_path_factory.mktemp("sentence") / "tiny-st"
    torch.manual_seed(0)
    modules = [
        module("Transformer", str(tiny_bert_dir), max_seq_length=48),
        module("Pooling", tiny.ENCODER["hidden_size"]),
        module("Dense", tiny.ENCODER["hidden_size"], 16),
        module("Normalize"),
    ]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_vit_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViTForImageClassification of 16x16 RGB images and three labels."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {key: value for key, value in tiny.ENCODER.items() if key != "max_position_embeddings"}
    config = transformers.ViTConfig(
        **sizes, image_size=16, patch_size=4, **tiny.labelled("circle", "square", "star")
    )
    tiny.roughen(transformers.ViTForImageClassification(config)).save_pretrained(folder)
    processor = tiny.image_processor(16, image_processor_type="ViTImageProcessor", resample=2)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Return a function that copies a model directory to where a test may damage it."""
    import shutil

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "copy"))

    return copy


@pytest.fixture(scope="session")
def x86_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the kit of the masked x86 tiers: made here, since it needs no network."""
    from edgekit.runners.kit import install_kit
    from edgekit.runners.x86.tiers import TIERS

    folder = tmp_path_factory.mktemp("x86") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(folder))
        kit = TIERS[0].kit
        if kit is None:
            pytest.skip(TIERS[0].state().missing)
        install_kit(kit)
    return folder
