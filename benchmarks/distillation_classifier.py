"""A classifier of short texts with few labels teaches a student of a quarter of its multiply-adds.

The texts are what WordNet says a noun means; the label is the file its lexicographers wrote it in: animal,
artifact, feeling, ... The teacher is the body of all-MiniLM-L6-v2 with a new head, trained here on the
labelled texts. The student is the teacher after `edgekit compress`. Its rows: not trained; the same labels
without a teacher; the teacher's probabilities beside those labels; the teacher alone on texts that nobody
labelled; and what labels for all of these would have brought. Every training has the same number of steps and
keeps its last weights; accuracy is on texts that nothing learnt from, before quantization.

Run from the checkout, after make demo and python -m tools.corpus build/corpus:
OMP_NUM_THREADS=1 python -m benchmarks.distillation_classifier [ROW ...]
Larger: --labelled 5000 --unlabelled 40000 --steps 2000 --seeds 5
The texts, teacher and student stay in build/classifier, and are not made again. Writes
benchmarks/results/distillation_classifier.json (rows that were not named stay); then: make docs
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.distillation_digits import multiply_adds
from benchmarks.rows import refuse_unknown
from benchmarks.students import kept_rows, last_student, over_seeds, write_results
from edgekit import compress_model
from edgekit.compress.base import parameters_of
from edgekit.compress.judge import outputs
from edgekit.data import Sample
from edgekit.model import ModelRef, TorchModel
from edgekit.recipe import recipe_from_table
from edgekit.source import load
from edgekit.store import write_text
from tools.corpus import fetched
from tools.corpus_formats import definitions
from tools.demo import prepare

ROOT = Path(__file__).parents[1]
OUTPUT = Path(__file__).parent / "results" / "distillation_classifier.json"
FOLDER = ROOT / "build" / "classifier"

CLASSES = {
    4: "act", 5: "animal", 6: "artifact", 7: "attribute", 8: "body", 9: "cognition", 10: "communication",
    11: "event", 12: "feeling", 13: "food", 14: "group", 15: "location", 17: "object", 18: "person",
    19: "phenomenon", 20: "plant", 21: "possession", 22: "process", 23: "quantity", 24: "relation",
    25: "shape", 26: "state", 27: "substance", 28: "time",
}  # fmt: skip
"""Number of a lexicographer's file -> what its nouns denote; two files of some 50 nouns are left out.

Source: lexnames(5WN)."""

TEST = 2000
EPOCHS, PEAK_RATE = 8, 2e-4
"""Of the teacher."""
COMPRESS = {"samples": 512, "layers": {"keep": 3}, "width": {"ffn": 384}}
SCHEDULE = {"batch": 64, "learning_rate": 0.0003, "precision": "bf16"}

ROWS: dict[str, tuple[str, dict[str, float]] | None] = {
    "not trained": None,
    "labels alone": ("labelled", {"soft": 0, "hard": 1}),
    "teacher and labels": ("labelled", {}),
    "teacher alone, texts without labels": ("unlabelled", {}),
    "labels alone, for all these texts": ("all-labelled", {"soft": 0, "hard": 1}),
}
"""Row -> which texts the student learns from, and its losses on the outputs."""


def write_texts(folder: Path, labelled: int, unlabelled: int) -> None:
    """Write the meanings with their labels, those without, all with theirs, and those to judge by."""
    with tempfile.TemporaryDirectory() as unpacked:
        package = fetched("wordnet-base", ROOT / "build" / "corpus" / "packages")
        subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
        nouns = (Path(unpacked) / "usr/share/wordnet/data.noun").read_text(encoding="utf-8")
    found: dict[str, set[int]] = {}
    for number, meaning in definitions(nouns):
        found.setdefault(meaning, set()).add(number)
    clear = [(text, CLASSES[min(of)]) for text, of in found.items() if len(of) == 1 and of <= CLASSES.keys()]
    drawn = [clear[i] for i in np.random.default_rng(0).permutation(len(clear))]
    pool = drawn[TEST : TEST + labelled + unlabelled]
    for name, some in {"test": drawn[:TEST], "labelled": pool[:labelled], "all-labelled": pool}.items():
        rows = (json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in some)
        write_text(folder / f"{name}.jsonl", "".join(f"{row}\n" for row in rows))
    rows = (json.dumps({"text": text}, ensure_ascii=False) for text, _ in pool)
    write_text(folder / "unlabelled.jsonl", "".join(f"{row}\n" for row in rows))


def read(path: Path) -> list[Sample]:
    """Return the texts of a file, with their labels where it has them."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Sample(row["text"], row.get("label")) for row in rows]


def train_teacher(folder: Path) -> None:
    """Train the body of all-MiniLM-L6-v2 with a head on the labelled texts, and save it as a directory."""
    import transformers

    torch.manual_seed(0)
    names = list(CLASSES.values())
    body = prepare(ROOT / "build")[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(body)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        body,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)},
    ).train()
    samples = read(folder / "labelled.jsonl")
    order = np.concatenate(
        [np.random.default_rng(epoch).permutation(len(samples)) for epoch in range(EPOCHS)]
    )
    batches = np.array_split(order, len(order) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_RATE, total_steps=len(batches))
    for step, batch in enumerate(batches):
        inputs = tokenizer(
            [samples[i].value for i in batch], padding=True, truncation=True, return_tensors="pt"
        )
        wanted = torch.tensor([names.index(samples[i].label) for i in batch])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**inputs).logits.float()
        loss = torch.nn.functional.cross_entropy(logits, wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 25 == 0 or step == len(batches) - 1:
            print(f"teacher, step {step} of {len(batches)}: loss {loss.item():.3f}", flush=True)
    model.eval().save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")


def compress(folder: Path) -> None:
    """Write what the student is before it learns."""
    data = {"data": str(folder / "unlabelled.jsonl"), "column": "text", "samples": COMPRESS["samples"]}
    table = {"model": str(folder / "teacher"), "calibration": data, "compress": COMPRESS}
    compress_model(recipe_from_table({**table, "validation": {"samples": 64}}), folder / "student")


def classes(model: TorchModel, samples: Sequence[Sample]) -> np.ndarray:
    """Return the most likely class of each text."""
    return np.concatenate(outputs(model, samples)).argmax(axis=1)


def figures(said: np.ndarray, teacher: np.ndarray, samples: Sequence[Sample]) -> dict[str, float]:
    """Return how often a model is right, and how often it says what the teacher says."""
    names = list(CLASSES.values())
    wanted = np.array([names.index(sample.label) for sample in samples])
    return {"accuracy": float(np.mean(said == wanted)), "agreement": float(np.mean(said == teacher))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--labelled", type=int, default=1500, help="texts whose labels are known")
    parser.add_argument("--unlabelled", type=int, default=6500, help="further texts")
    parser.add_argument("--steps", type=int, default=125, help="of 64 texts, for every student")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    refuse_unknown(parser, options.rows, ROWS)
    torch.set_num_threads(1)
    folder = FOLDER / f"{options.labelled}-{options.unlabelled}"
    if not (folder / "unlabelled.jsonl").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_texts(folder, options.labelled, options.unlabelled)
    if not (folder / "teacher" / "tokenizer.json").exists():
        train_teacher(folder)
    if not (folder / "student").exists():
        compress(folder)
    sizes = {**vars(options), **SCHEDULE, "test": TEST, "classes": len(CLASSES)}
    del sizes["rows"]
    rows = kept_rows(OUTPUT, sizes)
    test = read(folder / "test.jsonl")
    with tempfile.TemporaryDirectory() as scratch:
        teacher = load(ModelRef(str(folder / "teacher")), None, scratch=Path(scratch))
        start = load(ModelRef(str(folder / "student")), teacher.task, scratch=Path(scratch))
        said = classes(teacher, test)
        facts = {
            "teacher": figures(said, said, test)["accuracy"],
            "parameters": {"teacher": parameters_of(teacher.module), "student": parameters_of(start.module)},
            "multiply_adds": multiply_adds(start) / multiply_adds(teacher),
        }
        print(facts, flush=True)
        for name in options.rows or ROWS:
            runs = {}
            for seed in range(options.seeds if ROWS[name] else 1):
                student = start
                if ROWS[name]:
                    data, losses = ROWS[name]
                    schedule = {**SCHEDULE, "steps": options.steps, "seed": seed}
                    texts = read(folder / f"{data}.jsonl")
                    student = last_student(start, teacher, texts, losses, schedule, folder / "cache")
                runs[str(seed)] = figures(classes(student, test), said, test)
                print(name, seed, runs[str(seed)], flush=True)
            rows[name] = over_seeds(runs)
            ordered = {row: rows[row] for row in ROWS if row in rows}
            command = "OMP_NUM_THREADS=1 python -m benchmarks.distillation_classifier"
            write_results(OUTPUT, command, sizes, **facts, rows=ordered)
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
