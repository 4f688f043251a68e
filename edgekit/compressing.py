"""`compress_model`, `distill_model`: a smaller model before it is exported, each step measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.compress import AFTER_TRAINING, steps_of, wanted_table
from edgekit.compress.base import Data, parameters_of
from edgekit.compress.judge import Judge
from edgekit.compression import CompressOptions, WidthOptions
from edgekit.data import Sample, split
from edgekit.distilling import (
    COMPRESS_RECORD,
    distilled,
    leave_the_rest_to_the_first,
    lesson_of,
    student_of,
    training_state,
)
from edgekit.errors import DataError, RecipeError
from edgekit.finishing import finish_profile, finished
from edgekit.latency_table import LatencyTable
from edgekit.machine import versions
from edgekit.model import ModelRef, TorchModel
from edgekit.preflight import UserData, read_data, refuse_output, sift
from edgekit.profile import load_profile
from edgekit.recipe import DataOptions, Recipe, to_toml
from edgekit.record import Progress, StepRecord, silent
from edgekit.reference import Reference
from edgekit.source import load
from edgekit.source.saving import save, settled
from edgekit.store import dump_json, workspace, write_text, writing_folder

_CHOOSES = 4  # one sample of so many chooses between candidates; the rest is fitted to
_DEFAULT_TARGET = "cpu-x86"

Step = Callable[[TorchModel, Data], TorchModel]


@dataclass(frozen=True)
class CompressResult:
    """What `compress_model` made.

    Attributes:
        output: The model's directory.
        parameters_before: Of the model as it was loaded.
        parameters: Of the model now.
        history: Every step; those of the stage `compress` say in `quality` what the outputs keep.
    """

    output: Path
    parameters_before: int
    parameters: int
    history: tuple[StepRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "schema_version": 1,
            "parameters_before": self.parameters_before,
            "parameters": self.parameters,
            "history": [record.to_json() for record in self.history],
            "versions": versions(),
        }


def compress_model(
    recipe: Recipe, output: Path, *, force: bool = False, progress: Progress = silent
) -> CompressResult:
    """Make a model smaller and write it as a directory that loads again.

    Args:
        recipe: The request; of its targets only the first is looked at, for what is measured in its runtime.
            Where it has a `[distill]` table, the model is trained too.
        output: Folder to make.
        force: Replace `output` if it is there.
        progress: Told of each stage as it begins.

    Raises:
        EdgekitError: The input is wrong or the machine lacks something; nothing is written.
    """
    output = output if output.name not in ("", "..") else output.resolve()
    refuse_output(output, recipe, force=force, marker=COMPRESS_RECORD)
    if not recipe.compress.techniques and recipe.distill is None:
        raise RecipeError(
            "nothing says how to make the model smaller",
            "Give a technique, such as --layers 4 or --vocabulary 12000, or a recipe with [compress] tables.",
        )
    for target in recipe.targets:
        load_profile(target)
    recipe = _with_data(recipe)
    progress("load", "reading the data", None)
    data = read_data(recipe, calibrates=True)
    with training_state(output) as state, workspace() as scratch:
        progress("load", f"loading {recipe.model}", None)
        original = load(
            ModelRef(recipe.model, **recipe.model_options.model_dump()), recipe.task, scratch=scratch
        )
        original, data = sift(original, data, recipe)
        model = compressed(original, recipe, data, scratch, state, progress)
        progress("package", f"writing {output}", None)
        with writing_folder(output, force=force) as folder:
            save(model, folder, original)
            result = CompressResult(
                output, parameters_of(original.module), parameters_of(model.module), model.history
            )
            write_text(folder / "recipe.toml", to_toml(settled_recipe(recipe, model.history)))
            write_text(folder / COMPRESS_RECORD, dump_json(result.to_json()))
    return result


def distill_model(
    recipe: Recipe, output: Path, *, force: bool = False, progress: Progress = silent
) -> CompressResult:
    """Train a student to give what a teacher gives, and write it as a directory that loads again.

    Beside the output lies `<output>.training` while it lasts: run the same request again after a kill, and it
    goes on from the last checkpoint and ends in the same weights.

    Args:
        recipe: The request; its model is the teacher, its `[distill]` table says who learns and how.
        output: Folder to make.
        force: Replace `output` if it is there.
        progress: Told of each stage, and of the training's rate, loss and time left.

    Raises:
        EdgekitError: The input is wrong, the machine lacks something, or the training diverged; no output.
        SystemExit: With 0 when the training is over, in all processes of `accelerate launch` but the first.
    """
    if recipe.distill is None:
        raise RecipeError(
            "nothing says who learns", "Give --student DIR or --fresh-layers N, or a recipe with [distill]."
        )
    return compress_model(recipe, output, force=force, progress=progress)


def compressed(
    original: TorchModel,
    recipe: Recipe,
    data: UserData,
    scratch: Path,
    state: Path,
    progress: Progress = silent,
) -> TorchModel:
    """Return a model after the techniques and the training of a recipe; without any, as it is.

    Args:
        original: The model as it was loaded.
        recipe: Its `[compress]` and `[distill]` say what to do.
        data: Techniques look at the calibration samples, unless `[compress] data` names others; what is lost
            is measured on the held-out ones, which no technique sees.
        scratch: Folder for new tokenizers and configurations; it has to outlive the model.
        state: Folder for the checkpoints of a training.
        progress: Told of each technique as it begins.
    """
    options = _with_corpus(recipe)
    if not options.techniques and recipe.distill is None:
        return original
    progress("compress", "running the original", None)
    reference = Reference.of(original, data.held_out)
    steps = steps_of(options)
    looked_at = _looked_at(original, recipe, data, scratch, progress) if steps else None

    def run(model: TorchModel, name: str, step: Step) -> TorchModel:
        assert looked_at is not None
        progress("compress", name.replace("_", " "), None)
        latency = _measured(model, name, recipe, progress)
        return _judged(step(model, replace(looked_at, latency=latency)), reference)

    model = original
    for name, step in steps:
        if name not in AFTER_TRAINING:
            model = run(model, name, step)
    if recipe.distill is not None:
        student = student_of(model, original, recipe, data.calibration, scratch)
        if student is not model:
            student = _judged(student, reference)
        model = _taught(student, original, recipe, data, state, reference, progress)
    for name, step in steps:
        if name in AFTER_TRAINING:
            model = run(model, name, step)
    return settled(model, scratch)


def _taught(
    student: TorchModel,
    original: TorchModel,
    recipe: Recipe,
    data: UserData,
    state: Path,
    reference: Reference,
    progress: Progress,
) -> TorchModel:
    """Return the student after its training in float, and then with a target's codes where that is wanted."""
    options = recipe.distill
    assert options is not None
    if options.finish is not None:
        finish_profile(recipe, student.task)  # before hours of training
    elif options.steps == 0:
        raise RecipeError(
            "[distill] steps = 0 trains nothing", "Give steps, or leave them to --finish-for TARGET."
        )
    lesson = lesson_of(student, original, recipe, data.held_out, state, progress)
    if options.steps != 0:
        student = _judged(distilled(student, original, recipe, lesson, state, progress), reference)
    if options.finish is not None:
        student = _judged(finished(student, original, recipe, lesson, state / "finish", progress), reference)
    leave_the_rest_to_the_first()
    return student


def _looked_at(
    original: TorchModel, recipe: Recipe, data: UserData, scratch: Path, progress: Progress
) -> Data:
    """Return what the techniques look at."""
    samples = _samples(recipe, original, data)
    return Data(
        fit=tuple(sample for index, sample in enumerate(samples) if index % _CHOOSES),
        judge=Judge.of(original, samples[::_CHOOSES]),
        scratch=scratch,
        seed=recipe.seed,
        progress=progress,
    )


def _judged(model: TorchModel, reference: Reference) -> TorchModel:
    """Return the model with the quality that its last step left in the record of that step."""
    record = model.history[-1]
    facts = {**record.facts, "quality": dict(reference.quality(model))}
    return replace(model, history=(*model.history[:-1], replace(record, facts=facts)))


def _with_data(recipe: Recipe) -> Recipe:
    """Return the recipe with calibration samples, those of `[compress]` or `[distill]` where it has none."""
    if recipe.calibration.data is not None:
        return recipe
    compress, distill = recipe.compress, recipe.distill
    if compress.data is not None:
        given = DataOptions(data=compress.data, column=compress.column, samples=compress.samples)
        bare = compress.model_copy(update={"data": None, "column": None})
        return recipe.model_copy(update={"calibration": given, "compress": bare})
    if distill is not None and distill.data is not None:
        given = DataOptions(data=distill.data, column=distill.column, samples=compress.samples)
        return recipe.model_copy(update={"calibration": given})
    return recipe


def _with_corpus(recipe: Recipe) -> CompressOptions:
    """Return what is asked for, with the corpus of the vocabulary named: its own, or the data of the rest."""
    options, vocabulary = recipe.compress, recipe.compress.vocabulary
    source = options if options.data is not None else recipe.calibration
    if vocabulary is None or vocabulary.data is not None or source.data is None:
        return options
    named = vocabulary.model_copy(update={"data": source.data, "column": vocabulary.column or source.column})
    return options.model_copy(update={"vocabulary": named})


def settled_recipe(recipe: Recipe, history: Sequence[StepRecord]) -> Recipe:
    """Return a recipe that makes the same model on any machine: measured choices are written out.

    Args:
        recipe: The request.
        history: What was done for it.
    """
    width = recipe.compress.width
    if width is None or width.time is None:
        return recipe
    facts = next(r.facts for r in history if (r.stage, r.step) == ("compress", "width"))
    kept = {"time": None, "heads": facts["heads_after"], "ffn": facts["ffn_after"]}
    chosen = WidthOptions.model_validate({**width.model_dump(), **kept})
    return recipe.model_copy(update={"compress": recipe.compress.model_copy(update={"width": chosen})})


def _samples(recipe: Recipe, model: TorchModel, data: UserData) -> tuple[Sample, ...]:
    """Return the samples that techniques may look at: none of them is held out."""
    options = recipe.compress
    if options.data is None:
        if not data.calibration:
            raise DataError(
                "compression looks at samples of what the app will see, and none were given",
                "Give --data FILE, or [compress] data in the recipe; no labels are needed.",
            )
        return data.calibration[: options.samples]
    wanted = DataOptions(data=options.data, column=options.column, samples=options.samples)
    found = split(wanted, held_out=0, seed=recipe.seed, exclude=data.held_out).calibration
    try:
        return model.preprocessor.sift(found)[0]
    except DataError as error:
        raise DataError(f"{options.data}: {error.message}", error.hint) from None


def _measured(model: TorchModel, name: str, recipe: Recipe, progress: Progress) -> LatencyTable | None:
    """Return the times that a technique asks for, measured here in the first target's types."""
    request = wanted_table(model, recipe.compress, name)
    if request is None:
        return None
    from edgekit.validate.width_table import measure_table

    progress("compress", "timing widths in ONNX Runtime", None)
    return measure_table(request, load_profile((*recipe.targets, _DEFAULT_TARGET)[0]))
