"""A small Llama teaches a student of half its layers, and an encoder one of half its: which keeps more?

The decoder is trained here, on one thread, from a fixed seed (`benchmarks.small_llama`, for longer); its
student is what `edgekit compress --layers 3` leaves of its six. Its rows: not trained; the next token alone,
without the teacher; forward KL; reverse KL; each of both with half of the batches written by the student and
graded by the teacher. All run the same steps on the same texts and keep their last weights. Held-out texts
tell the perplexity over the teacher's, how often the most likely next token is the teacher's, and the loss,
KL(teacher ‖ student) in nats; what the student writes itself tells how unlikely the teacher deems it, in nats
per token.

The encoder is all-MiniLM-L6-v2 with three of its six layers, taught on the same texts for as many steps: how
often the nearest of the other held-out texts is the teacher's, and 1 - cosine. One pair of models, not all of
them: the encoder has seen a billion sentences, the decoder a million tokens.

Run from the checkout, after make demo and python -m tools.corpus build/corpus:
OMP_NUM_THREADS=1 python -m benchmarks.distillation_llama [ROW ...]
Larger: --updates 10000 --texts 100000 --steps 5000 --seeds 5; smaller students: --layers 2
The models stay in build/llama, and are not trained again. Writes
benchmarks/results/distillation_llama.json (rows that were not named stay); then: make docs
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import small_llama
from benchmarks.compression import embedded
from benchmarks.rows import refuse_unknown
from benchmarks.students import kept_rows, last_student, over_seeds, write_results
from edgekit import compress_model
from edgekit.compress.base import parameters_of
from edgekit.compress.feeding import fed, groups
from edgekit.data import Sample
from edgekit.distill.writing import prompts, written
from edgekit.model import ModelRef, TorchModel
from edgekit.recipe import recipe_from_table
from edgekit.source import load
from edgekit.store import write_text
from tools.demo import prepare

ROOT = Path(__file__).parents[1]
OUTPUT = Path(__file__).parent / "results" / "distillation_llama.json"
FOLDER = ROOT / "build" / "llama"
CORPUS = ROOT / "build" / "corpus"

KINDS = {"in-domain": "", "held-out": "held-out "}
"""Texts to judge by -> what their figures' names begin with."""
EVALUATED = 200
"""Texts of each kind."""
WRITTEN_TOKENS = 32
SHORTEST, LONGEST = 40, 300
"""Characters of a text."""
FITTED = 512
"""Texts that the layers that stay are fitted to."""
SCHEDULE = {"batch": 32, "learning_rate": 0.0003, "precision": "bf16"}

NEXT = {"soft": 0, "hard": 1}
REVERSE = {"soft": 0, "reverse": 1}
OWN = {"on_policy": 0.5}
ROWS: dict[str, dict[str, float] | None] = {
    "decoder, not trained": None,
    "decoder, next token alone": NEXT,
    "decoder, forward KL": {},
    "decoder, reverse KL": REVERSE,
    "decoder, forward KL, half on its own texts": OWN,
    "decoder, reverse KL, half on its own texts": {**REVERSE, **OWN},
    "encoder, not trained": None,
    "encoder, cosine": {},
}
"""Row -> its losses on the outputs; those of decoders at a temperature of 1."""


def write_texts(folder: Path, texts: int) -> None:
    """Write texts to learn from and two kinds to judge by: from the same packages, and from others."""
    for name, count in {"general": texts, "in-domain": EVALUATED, "held-out": EVALUATED}.items():
        lines = (CORPUS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        fit = [line for line in lines if SHORTEST <= len(line) <= LONGEST]
        drawn = np.random.default_rng(2).permutation(len(fit))[:count]
        write_text(folder / f"{name}.txt", "".join(f"{fit[index]}\n" for index in drawn))


def read(path: Path) -> list[Sample]:
    """Return the texts of a file."""
    return [Sample(line) for line in path.read_text(encoding="utf-8").splitlines()]


class DecoderScale:
    """What a teacher gives for held-out texts, and how far another model is from it."""

    def __init__(self, teacher: TorchModel, folder: Path) -> None:
        self.teacher = teacher
        self.batches: dict[str, list[tuple[dict[str, torch.Tensor], torch.Tensor]]] = {}
        for name in KINDS:
            texts = read(folder / f"{name}.txt")
            fed_texts = [fed(teacher, [texts[index] for index in group]) for group in groups(texts)]
            self.batches[name] = [(inputs, _logs(teacher, inputs)) for inputs in fed_texts]

    def of(self, model: TorchModel) -> dict[str, float]:
        """Return a model's figures, those on other English with `held-out` before their names."""
        found = {"writes": self.writes(model)}
        for name, prefix in KINDS.items():
            whole: dict[str, list[torch.Tensor]] = {}
            for inputs, theirs in self.batches[name]:
                own, real = _logs(model, inputs), inputs["attention_mask"].bool()
                follows = real[:, 1:] & real[:, :-1]
                gaps = {"loss": (theirs.exp() * (theirs - own)).sum(-1)[real]}
                gaps["agreement"] = (theirs.argmax(-1) == own.argmax(-1))[real]
                for side, logs in (("nats", own), ("teacher", theirs)):
                    ids = inputs["input_ids"][:, 1:, None]
                    gaps[side] = -logs[:, :-1].gather(2, ids)[..., 0][follows]
                for key, values in gaps.items():
                    whole.setdefault(key, []).append(values.double())
            mean = {key: float(torch.cat(values).mean()) for key, values in whole.items()}
            found[f"{prefix}perplexity"] = math.exp(mean["nats"])
            found[f"{prefix}perplexity ratio"] = math.exp(mean["nats"] - mean["teacher"])
            found |= {f"{prefix}{key}": mean[key] for key in ("agreement", "loss")}
        return found

    def writes(self, model: TorchModel) -> float:
        """Return -log p by the teacher of each token that a model writes, after the first halves of texts."""
        total, tokens = 0.0, 0
        torch.manual_seed(0)
        for inputs, _ in self.batches["in-domain"][::2]:
            begun = prompts(inputs)
            start = begun.shape[1]
            new = written(model, begun, start + WRITTEN_TOKENS)
            logs = _logs(self.teacher, new)[:, start - 1 : -1]
            ids, real = new["input_ids"][:, start:, None], new["attention_mask"][:, start:].bool()
            total -= float(logs.gather(2, ids)[..., 0][real].double().sum())
            tokens += int(real.sum())
        return total / tokens


def _logs(model: TorchModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return log-probabilities of the next tokens [rows, positions, vocabulary]."""
    with torch.no_grad():
        return torch.as_tensor(model.module(**inputs)["logits"].log_softmax(-1))


class EncoderScale:
    """What an encoder gives for held-out texts, and how far another is from it."""

    def __init__(self, teacher: TorchModel, folder: Path) -> None:
        self.texts = {name: [str(s.value) for s in read(folder / f"{name}.txt")] for name in KINDS}
        self.given = {name: embedded(teacher, texts) for name, texts in self.texts.items()}

    def of(self, model: TorchModel) -> dict[str, float]:
        """Return a model's figures, those on other English with `held-out` before their names."""
        found = {}
        for name, prefix in KINDS.items():
            theirs, own = self.given[name], embedded(model, self.texts[name])
            found[f"{prefix}agreement"] = float(np.mean(_nearest(theirs) == _nearest(own)))
            found[f"{prefix}loss"] = float(np.mean(1 - (theirs * own).sum(axis=1)))
        return found


def _nearest(embeddings: np.ndarray) -> np.ndarray:
    """Return which of the other texts is nearest to each: [texts, dim] → [texts]."""
    similar = embeddings @ embeddings.T
    np.fill_diagonal(similar, -np.inf)
    return np.asarray(similar.argmax(axis=1))


def compress(path: Path, layers: int, output: Path) -> None:
    """Write what a student is before it learns."""
    data = {"data": str(FOLDER / "general.txt"), "samples": FITTED}
    kept = {"samples": FITTED, "layers": {"keep": layers}}
    table = {"model": str(path), "calibration": data, "compress": kept}
    compress_model(recipe_from_table({**table, "validation": {"samples": 64}}), output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--updates", type=int, default=1200, help="of 1024 tokens, for the decoder's teacher")
    parser.add_argument("--layers", type=int, default=3, help="of six that the students keep")
    parser.add_argument("--texts", type=int, default=4000, help="to learn from")
    parser.add_argument("--steps", type=int, default=100, help="of 32 texts, for every student")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    refuse_unknown(parser, options.rows, ROWS)
    torch.set_num_threads(1)
    sizes = {**vars(options), **SCHEDULE, "evaluated": EVALUATED, "vocabulary": small_llama.VOCABULARY}
    sizes["trained_tokens"] = options.updates * small_llama.BATCH * small_llama.CONTEXT
    del sizes["rows"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_texts(FOLDER, options.texts)
    decoder = FOLDER / f"decoder-{options.updates}"
    if not (decoder / "tokenizer.json").exists():
        small_llama.train(decoder, options.updates)
    teachers = {"decoder": decoder, "encoder": prepare(ROOT / "build")[0]}
    rows = kept_rows(OUTPUT, sizes)
    facts: dict[str, Any] = {}
    texts = read(FOLDER / "general.txt")
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        for kind, path in teachers.items():
            names = [name for name in options.rows or ROWS if name.startswith(kind)]
            teacher = load(ModelRef(str(path)), None, scratch=scratch)
            small = FOLDER / f"{path.name}-{options.layers}-layers"
            if not small.exists():
                compress(path, options.layers, small)
            start = load(ModelRef(str(small)), teacher.task, scratch=scratch)
            scale = (DecoderScale if kind == "decoder" else EncoderScale)(teacher, FOLDER)
            facts[kind] = {
                "parameters": {
                    "teacher": parameters_of(teacher.module),
                    "student": parameters_of(start.module),
                },
                **scale.of(teacher),
            }
            print(kind, facts[kind], flush=True)
            for name in names:
                runs = {}
                for seed in range(1 if ROWS[name] is None else options.seeds):
                    student = start
                    if ROWS[name] is not None:
                        losses = {**ROWS[name], "temperature": 1}
                        schedule = {**SCHEDULE, "steps": options.steps, "seed": seed}
                        student = last_student(start, teacher, texts, losses, schedule, FOLDER / "cache")
                    runs[str(seed)] = scale.of(student)
                    shown = {key: round(value, 4) for key, value in runs[str(seed)].items()}
                    print(name, seed, shown, flush=True)
                rows[name] = over_seeds(runs)
                ordered = {row: rows[row] for row in ROWS if row in rows}
                command = "OMP_NUM_THREADS=1 python -m benchmarks.distillation_llama"
                write_results(OUTPUT, command, sizes, teachers=facts, rows=ordered)
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
