"""`distilled`: a student trained to give what the original gives, from samples without labels."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.compress.anatomy import FAMILIES
from edgekit.compress.base import parameters_of, sizes
from edgekit.compress.judge import Judge
from edgekit.data import MIN_HELD_OUT, Sample, split
from edgekit.distill.cache import TeacherCache, teacher_cache
from edgekit.distill.fingerprint import model_sha256
from edgekit.distill.objective import Objective, wanted_outputs
from edgekit.distill.precision import Precision
from edgekit.distill.processes import training_processes
from edgekit.distill.student import changed, fresh_student, refuse_unfit
from edgekit.distill.training import Trained, TrainingPlan, train
from edgekit.distill.weights import COMPARISONS, weights_of
from edgekit.distillation import ChangeOptions, DistillOptions
from edgekit.errors import DataError, ModelError, RecipeError
from edgekit.model import ModelRef, TorchModel
from edgekit.recipe import DataOptions, Recipe
from edgekit.record import Clock, Progress, StepRecord, silent
from edgekit.reference import Reference
from edgekit.source import load
from edgekit.store import sha256_json

COMPRESS_RECORD = "compress.json"
"""Lies in a directory that edgekit wrote: what was done, and what was lost."""

_EVALUATIONS = 20
_CHECKPOINT_STEPS = 50  # about a minute of a small student on two cores
_PAIRED = ("sentence-embedding",)


def training_folder(output: Path) -> Path:
    """Return where a training keeps its checkpoints until its output is written."""
    return output.with_name(f"{output.name}.training")


def leave_the_rest_to_the_first() -> None:
    """End a process that only helped to train: the first one judges and writes.

    Raises:
        SystemExit: In every process but the first.
    """
    if not training_processes().main:
        raise SystemExit(0)


@contextmanager
def training_state(output: Path) -> Iterator[Path]:
    """Give the folder for a training's checkpoints while an output is made; it goes when that is written.

    Args:
        output: What is made of the student.

    Raises:
        KeyboardInterrupt: Passed on; where checkpoints are kept, its text says so.
    """
    folder = training_folder(output)
    try:
        yield folder
    except KeyboardInterrupt:
        if folder.is_dir():
            said = f"the same command goes on with what {folder} keeps of the training"
            raise KeyboardInterrupt(said) from None
        raise
    shutil.rmtree(folder, ignore_errors=True)


def student_of(
    start: TorchModel, teacher: TorchModel, recipe: Recipe, samples: Sequence[Sample], scratch: Path
) -> TorchModel:
    """Return who learns, before it learns.

    Args:
        start: The model as `[compress]` left it; it learns unless `[distill]` names another student.
        teacher: The original.
        recipe: Its `[distill]` says who learns.
        samples: What a changed student's matrices are fitted on.
        scratch: Folder for new configurations; it has to outlive the model.

    Raises:
        RecipeError: None or more than one is named, or it cannot learn from this teacher.
        ModelError: It cannot be loaded or built.
    """
    options = recipe.distill
    assert options is not None
    ways = {
        "[compress]": recipe.compress.techniques,
        "[distill] student": options.student,
        "[distill.fresh]": options.fresh,
    }
    named = [name for name, given in ways.items() if given]
    if len(named) > 1:
        raise RecipeError(f"{' and '.join(named)} each name a student", "Keep one of them.")
    if not named and options.changes == ChangeOptions():
        raise RecipeError(
            "nothing says who learns",
            "Give a student: --student DIR, --fresh-layers N, or [compress] tables in the recipe.",
        )
    student = start
    if options.student is not None:
        student = _loaded(options.student, teacher, recipe, scratch)
    elif options.fresh is not None:
        student = fresh_student(teacher, options.fresh, recipe.seed, scratch)
    student = replace(changed(student, options.changes, scratch, samples), trained=None)
    refuse_unfit(teacher, student)
    return student


@dataclass(frozen=True)
class Lesson:
    """What there is to learn, and by what a student is judged on the way.

    Attributes:
        samples: To learn from.
        held_out: To choose the best checkpoint by.
        weights: What each loss counts.
        cache: The teacher's outputs for `samples`.
        evaluate: Gives a student's quality on `held_out` by name; `closeness` is what training watches.
        identity: The teacher and the data, in digests.
    """

    samples: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    weights: Mapping[str, float]
    cache: TeacherCache
    evaluate: Callable[[TorchModel], Mapping[str, float]]
    identity: Mapping[str, str]


def lesson_of(
    student: TorchModel,
    teacher: TorchModel,
    recipe: Recipe,
    unseen: tuple[Sample, ...],
    state: Path,
    progress: Progress = silent,
) -> Lesson:
    """Return what a teacher teaches a student.

    Args:
        student: Who learns, see `student_of`.
        teacher: The original.
        recipe: Its `[distill]` names the data and the losses.
        unseen: Held-out samples that must not be learnt from.
        state: Folder for the teacher's outputs, unless the recipe names another.
        progress: Told of each stage.

    Raises:
        RecipeError: A loss is asked for that this task or this data does not have.
        DataError: There is too little data.
    """
    options = recipe.distill
    assert options is not None
    samples, held_out, digest = _samples(recipe, teacher, unseen)
    labelled = all(sample.label is not None for sample in samples)
    weights = weights_of(
        teacher.task, options.losses, labelled=labelled, layered=_layered(teacher) and _layered(student)
    )
    if options.neighbours and not COMPARISONS & weights.keys():
        raise RecipeError(
            "[distill] neighbours needs a loss that compares texts",
            "Give similarity or anchors a weight in [distill.losses]; sentence embeddings have them.",
        )
    wanted = wanted_outputs(teacher.task, options.losses)
    if precision_of(options) != "fp32":
        wanted = replace(wanted, precision="bf16")
    folder = Path(options.cache) if options.cache else state / "teacher"
    processes = training_processes()
    cache = teacher_cache(
        teacher,
        samples,
        wanted,
        folder,
        progress if processes.main else silent,
        device=str(processes.device),
        rank=processes.rank_here,
        processes=processes.count_here,
    )
    progress("distill", "measuring the student before it learns", None)
    judge, reference = Judge.of(teacher, held_out), Reference.of(teacher, held_out)

    def evaluate(model: TorchModel) -> Mapping[str, float]:
        return {"closeness": -judge.loss(model), **reference.quality(model)}

    identity = {"teacher": teacher.source_sha256, "data": digest}
    return Lesson(samples, held_out, weights, cache, evaluate, identity)


def distilled(
    student: TorchModel,
    teacher: TorchModel,
    recipe: Recipe,
    lesson: Lesson,
    state: Path,
    progress: Progress = silent,
) -> TorchModel:
    """Return the student after training, with the record of how it went.

    Args:
        student: Who learns, see `student_of`.
        teacher: The original.
        recipe: Its `[distill]` says how.
        lesson: What the teacher teaches.
        state: Folder for checkpoints, where an interrupted training goes on.
        progress: Told of the training's rate, loss and time left.

    Raises:
        DataError: Something is other than what an interrupted training began with.
        TrainingError: A loss became NaN or infinite.
    """
    options = recipe.distill
    assert options is not None
    clock = Clock()
    objective = Objective(
        teacher, lesson.cache, student, lesson.weights, options.losses, _kept(student), recipe.seed
    )
    plan = plan_of(options, len(lesson.samples), recipe.seed)
    asked = options.model_dump(mode="json", exclude={"cache", "student", "finish"})
    trained = train(
        student,
        lesson.samples,
        objective,
        plan,
        evaluate=lesson.evaluate,
        watch="closeness",
        folder=state,
        identity={
            **lesson.identity,
            "student": model_sha256(student),
            "options": sha256_json({**asked, "seed": recipe.seed}),
        },
        progress=progress,
        near=(lambda indices: lesson.cache.rows(indices).values.numpy()) if options.neighbours else None,
    )
    did = (
        f"Trained for {trained.steps_run:,} steps of {plan.batch * plan.accumulate} samples"
        f" ({len(lesson.samples):,} distinct); the best of {len(trained.points)} evaluations is at step"
        f" {trained.best_step:,}: {loss_on_the_way(trained)}."
    )
    facts = {**sizes(student, trained.student), **training_facts(trained, plan, lesson.weights, lesson)}
    record = clock.record("distill", "distillation", did, **facts)
    return replace(trained.student, history=(*student.history, record))


def loss_on_the_way(trained: Trained) -> str:
    """Return in words what a training did for the samples that are held out."""
    first, best = (next(p for p in trained.points if p.step == step) for step in (0, trained.best_step))
    return f"loss on held-out samples {-first.quality['closeness']:.4f} -> {-best.quality['closeness']:.4f}"


def training_facts(
    trained: Trained, plan: TrainingPlan, weights: Mapping[str, float], lesson: Lesson
) -> dict[str, Any]:
    """Return what the record of a training holds; no times among it: they are not the artifact's."""
    curve = [
        {
            "step": point.step,
            "samples": point.samples,
            "losses": dict(point.losses),
            "learning_rate": point.learning_rate,
            "quality": dict(point.quality),
        }
        for point in trained.points
    ]
    return {
        "losses": dict(weights),
        "steps": trained.steps_run,
        "steps_planned": plan.steps,
        "batch": plan.batch * plan.accumulate,
        "stopped_early": trained.stopped_early,
        "best_step": trained.best_step,
        "samples": len(lesson.samples),
        "held_out": len(lesson.held_out),
        "curve": curve,
    }


def _samples(
    recipe: Recipe, teacher: TorchModel, unseen: tuple[Sample, ...]
) -> tuple[tuple[Sample, ...], tuple[Sample, ...], str]:
    """Return samples to learn from, others to choose the best checkpoint by, and the digest of their file."""
    options = recipe.distill
    assert options is not None
    source = options if options.data is not None else recipe.calibration
    wanted = DataOptions(
        data=source.data, column=source.column, label_column=source.label_column, samples=options.samples
    )
    found = split(wanted, held_out=options.held_out, seed=recipe.seed, exclude=unseen)
    try:
        learnt, apart = _sifted(teacher, found.calibration), _sifted(teacher, found.held_out)
    except DataError as error:
        raise DataError(f"{wanted.data}: {error.message}", error.hint) from None
    if min(len(apart), len(learnt)) < MIN_HELD_OUT:
        raise DataError(
            f"{wanted.data} has too few samples to learn from some and hold {MIN_HELD_OUT} others apart",
            "Give more: the best checkpoint is chosen by samples that the student does not learn from.",
        )
    if teacher.task in _PAIRED:
        apart = tuple(replace(sample, label=None) for sample in apart)
    return learnt, apart, found.audit.sha256


def _sifted(teacher: TorchModel, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Return the samples that mean something to the teacher, with their labels."""
    if teacher.task not in _PAIRED:
        return teacher.preprocessor.sift(samples)[0]
    # The label is the text's pair, which no list of classes knows.
    labels = {id(sample.value): sample.label for sample in samples}
    bare = tuple(replace(sample, label=None) for sample in samples)
    found = teacher.preprocessor.sift(bare)[0]
    return tuple(replace(sample, label=labels[id(sample.value)]) for sample in found)


def precision_of(options: DistillOptions) -> Precision:
    """Return in what a training computes: bf16 on a GPU and fp32 elsewhere, unless the options say."""
    if options.precision != "auto":
        return options.precision
    return "fp32" if training_processes().device.type == "cpu" else "bf16"


def plan_of(options: DistillOptions, samples: int, seed: int) -> TrainingPlan:
    """Return how `[distill]` trains on so many samples."""
    each = options.batch * options.accumulate
    steps = options.steps or max(1, math.ceil(options.epochs * samples / each))
    return TrainingPlan(
        steps=steps,
        batch=options.batch,
        accumulate=options.accumulate,
        learning_rate=options.learning_rate,
        warm_up=options.warm_up,
        decay=options.decay,
        weight_decay=options.weight_decay,
        beta2=options.beta2,
        ema=options.ema,
        clip_norm=1.0,
        precision=precision_of(options),
        evaluate_every=options.evaluate_every or max(1, math.ceil(steps / _EVALUATIONS)),
        patience=options.patience,
        best_from=round((options.losses.comparisons_from or 0) * steps),
        seed=seed,
        checkpoint_every=_CHECKPOINT_STEPS,
    )


def _layered(model: TorchModel) -> bool:
    config: Any = (
        getattr(model.module.get_submodule("model"), "config", None) if model.from_transformers else None
    )
    return getattr(config, "model_type", None) in FAMILIES


def _loaded(spec: str, teacher: TorchModel, recipe: Recipe, scratch: Path) -> TorchModel:
    clock = Clock()
    reference = ModelRef(spec, **recipe.model_options.model_dump(exclude={"revision"}))
    student = load(reference, teacher.task, scratch=scratch)
    record = clock.record(
        "distill",
        "student",
        f"{student.name} learns, as it was given: {parameters_of(student.module):,} parameters.",
        parameters_after=parameters_of(student.module),
    )
    return replace(student, history=(*teacher.history, *_made_by(Path(spec)), record))


def _made_by(folder: Path) -> tuple[StepRecord, ...]:
    """Return what `edgekit compress` did for a directory; nothing where another tool wrote it.

    Raises:
        ModelError: Its record is damaged.
    """
    path = folder / COMPRESS_RECORD
    if not path.is_file():
        return ()
    try:
        history = json.loads(path.read_text(encoding="utf-8"))["history"]
        records = (StepRecord.from_json(entry) for entry in history if entry["stage"] != "load")
        # What they kept of the quality was measured on other samples.
        return tuple(replace(r, facts={k: v for k, v in r.facts.items() if k != "quality"}) for r in records)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _kept(student: TorchModel) -> list[int] | None:
    """Return which of the teacher's layers the student's were, where its history tells."""
    for record in reversed(student.history):
        if (record.stage, record.step) == ("compress", "layers"):
            kept: Any = record.facts["kept"]
            return list(kept)
    return None
