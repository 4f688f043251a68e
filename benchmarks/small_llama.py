"""A small Llama trained for some minutes: what trimming its vocabulary and a fifth of its width costs.

The model is trained here, on one thread, from a fixed seed; no technique trains. Perplexity is of whole texts
that are held out: exp(-log p(text) / tokens), where tokens are the original tokenizer's under every model, so
that models with different tokenizers can be compared.

    python -m tools.corpus build/corpus
    OMP_NUM_THREADS=1 python -m benchmarks.small_llama

The trained model stays in build/small-llama, and is not trained again. Writes
benchmarks/results/small_llama.json.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.compress.base import Data, parameters_of
from edgekit.compress.judge import Judge
from edgekit.compress.vocabulary import trim_vocabulary
from edgekit.compress.width import prune_width
from edgekit.compression import VocabularyOptions, WidthOptions
from edgekit.data import split
from edgekit.machine import read_machine, versions
from edgekit.model import ModelRef, TorchModel
from edgekit.recipe import DataOptions
from edgekit.source import load
from edgekit.store import dump_json, write_text
from edgekit.tasks.generation import surprisals

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "build" / "corpus"
FOLDER = ROOT / "build" / "small-llama"
OUTPUT = Path(__file__).parent / "results" / "small_llama.json"

VOCABULARY = 4096
CONTEXT = 128
BATCH = 8
UPDATES = 350
PEAK_RATE = 3e-3
EVALUATED = 150
COVERAGE = 0.99
"""Of the corpus' tokens that the trimmed vocabulary still has. The tokenizer was made for this corpus and has
none to spare, other than one that was made for the whole Web."""
SHARE = 0.8
"""Of the layers' multiply-adds that stay: a fifth of the width goes."""


def train(folder: Path, updates: int = UPDATES) -> None:
    """Train a tokenizer and a Llama of 5.5 million parameters on the corpus, and save them as a directory."""
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(1)
    texts = (CORPUS / "general.txt").read_text(encoding="utf-8").splitlines()
    chosen = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:120_000]]
    tokenizer = _tokenizer(chosen[:30_000])
    ids: list[int] = []
    for encoding in tokenizer.encode_batch(chosen):
        ids += encoding.ids
        if len(ids) > updates * BATCH * CONTEXT:
            break
    batches = torch.tensor(ids[: updates * BATCH * CONTEXT]).view(updates, BATCH, CONTEXT)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, intermediate_size=704, max_position_embeddings=256, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_RATE, total_steps=updates)
    started = time.process_time()
    for step, batch in enumerate(batches):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.model(batch).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden).float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 25 == 0 or step == updates - 1:
            print(f"{step}: loss {loss.item():.3f}, {time.process_time() - started:.0f} s of CPU", flush=True)
    model.eval().save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)


def _tokenizer(texts: Sequence[str]) -> Any:
    """Return a byte-level BPE that puts `<s>` before a text, so that its first token is predicted too."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def nats(model: TorchModel, texts: Sequence[str]) -> np.ndarray:
    """Return -log p of each text."""
    found = []
    for text in texts:
        ids = model.preprocessor.tokenizer.encode(text).ids
        inputs = {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
        }
        with torch.no_grad():
            logits = model.module(**{name: inputs[name] for name in model.input_names})["logits"][0]
        found.append(surprisals(logits.double().numpy(), np.array(ids)).sum())
    return np.array(found)


class Scale:
    """Held-out texts, and how many of the original's tokens and how many bytes they have.

    Texts are as long as fits the model, also in smaller pieces.
    """

    def __init__(self, original: TorchModel, file: Path) -> None:
        tokenizer = original.preprocessor.tokenizer
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if 40 <= len(line) <= 300]
        self.texts = [lines[i] for i in np.random.default_rng(1).permutation(len(lines))[:EVALUATED]]
        self.tokens = sum(len(tokenizer.encode(text).ids) - 1 for text in self.texts)
        self.bytes = sum(len(text.encode()) for text in self.texts)

    def of(self, model: TorchModel) -> dict[str, float]:
        """Return perplexity per original token, and bits per byte."""
        total = float(nats(model, self.texts).sum())
        return {
            "perplexity": math.exp(total / self.tokens),
            "bits_per_byte": total / math.log(2) / self.bytes,
        }


def main() -> None:
    """Train where that is not done yet, compress in every way, and keep the results."""
    if not (FOLDER / "tokenizer.json").exists():
        train(FOLDER)
    torch.set_num_threads(1)
    scratch = FOLDER / "scratch"
    scratch.mkdir(exist_ok=True)
    original = load(ModelRef(str(FOLDER)), None, scratch=scratch)
    scales = {name: Scale(original, CORPUS / f"{name}.txt") for name in ("in-domain", "held-out")}
    data_file = str(CORPUS / "general.txt")
    samples = split(DataOptions(data=data_file, samples=256), held_out=64, seed=0)
    lines = (CORPUS / "general.txt").read_text(encoding="utf-8").splitlines()
    write_text(scratch / "some.txt", "\n".join(lines[:: len(lines) // 20_000]) + "\n")
    trim = VocabularyOptions(coverage=COVERAGE, data=str(scratch / "some.txt"))
    rows: list[dict[str, Any]] = []

    def measured(name: str, model: TorchModel) -> TorchModel:
        row: dict[str, Any] = {"name": name, "parameters": parameters_of(model.module)}
        for scale, texts in scales.items():
            row[scale] = texts.of(model)
            base = rows[0][scale]["perplexity"] if rows else row[scale]["perplexity"]
            row[scale]["perplexity_lost"] = row[scale]["perplexity"] / base - 1
        rows.append(row)
        print(
            name,
            row["parameters"],
            {key: round(row[key]["perplexity_lost"], 4) for key in scales},
            flush=True,
        )
        return model

    def data(model: TorchModel) -> Data:
        return Data(samples.calibration, Judge.of(model, samples.held_out), scratch)

    measured("as trained", original)
    small = measured("trim", trim_vocabulary(original, trim, data(original)))
    judged = data(small)
    for importance in ("surgeon", "random"):
        for repair in (True, False):
            options = WidthOptions(multiply_adds=SHARE, importance=importance, repair=repair)
            ending = "with repair" if repair else "without repair"
            measured(
                f"trim, 20 % of the width by {importance}, {ending}", prune_width(small, options, judged)
            )
    document = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.small_llama",
        "training": {"updates": UPDATES, "tokens": UPDATES * BATCH * CONTEXT, "vocabulary": VOCABULARY},
        "kept": {"coverage": COVERAGE, "multiply_adds": SHARE},
        "machine": asdict(read_machine()),
        "versions": versions(),
        "texts": {
            name: {"texts": EVALUATED, "tokens": s.tokens, "bytes": s.bytes} for name, s in scales.items()
        },
        "rows": rows,
    }
    write_text(OUTPUT, dump_json(document))
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
