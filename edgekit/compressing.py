"""`compress_model`: a model made smaller before it is exported, each step measured against the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.compress import steps_of, wanted_table
from edgekit.compress.base import Data, parameters_of
from edgekit.compress.judge import Judge
from edgekit.compression import CompressOptions, WidthOptions
from edgekit.data import Sample, split
from edgekit.errors import DataError, RecipeError
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

RECORD = "compress.json"
"""Lies in a compressed model's directory: what was done, and what was lost."""

_CHOOSES = 4  # one sample of so many chooses between candidates; the rest is fitted to
_DEFAULT_TARGET = "cpu-x86"


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
        output: Folder to make.
        force: Replace `output` if it is there.
        progress: Told of each stage as it begins.

    Raises:
        EdgekitError: The input is wrong or the machine lacks something; nothing is written.
    """
    output = output if output.name not in ("", "..") else output.resolve()
    refuse_output(output, recipe, force=force, marker=RECORD)
    if not recipe.compress.techniques:
        raise RecipeError(
            "nothing says how to make the model smaller",
            "Give a technique, such as --layers 4 or --vocabulary 12000, or a recipe with [compress] tables.",
        )
    for target in recipe.targets:
        load_profile(target)
    if recipe.calibration.data is None and recipe.compress.data is not None:
        own = recipe.compress
        given = DataOptions(data=own.data, column=own.column, samples=own.samples)
        recipe = recipe.model_copy(update={"calibration": given})
        recipe = recipe.model_copy(update={"compress": own.model_copy(update={"data": None, "column": None})})
    progress("load", "reading the data", None)
    data = read_data(recipe, calibrates=True)
    with workspace() as scratch:
        progress("load", f"loading {recipe.model}", None)
        original = load(
            ModelRef(recipe.model, **recipe.model_options.model_dump()), recipe.task, scratch=scratch
        )
        original, data = sift(original, data, recipe)
        model = compressed(original, recipe, data, scratch, progress)
        progress("package", f"writing {output}", None)
        with writing_folder(output, force=force) as folder:
            save(model, folder, original)
            result = CompressResult(
                output, parameters_of(original.module), parameters_of(model.module), model.history
            )
            write_text(folder / "recipe.toml", to_toml(settled_recipe(recipe, model.history)))
            write_text(folder / RECORD, dump_json(result.to_json()))
    return result


def compressed(
    original: TorchModel, recipe: Recipe, data: UserData, scratch: Path, progress: Progress = silent
) -> TorchModel:
    """Return a model after the techniques of a recipe; without any, as it is.

    Args:
        original: The model as it was loaded.
        recipe: Its `[compress]` says what to do.
        data: Techniques look at the calibration samples, unless `[compress] data` names others; what is lost
            is measured on the held-out ones, which no technique sees.
        scratch: Folder for new tokenizers and configurations; it has to outlive the model.
        progress: Told of each technique as it begins.
    """
    options = _with_corpus(recipe)
    if not options.techniques:
        return original
    progress("compress", "running the original", None)
    samples = _samples(recipe, original, data)
    looked_at = Data(
        fit=tuple(sample for index, sample in enumerate(samples) if index % _CHOOSES),
        judge=Judge.of(original, samples[::_CHOOSES]),
        scratch=scratch,
        seed=recipe.seed,
        progress=progress,
    )
    reference = Reference.of(original, data.held_out)
    model = original
    for name, step in steps_of(options):
        progress("compress", name.replace("_", " "), None)
        model = step(model, replace(looked_at, latency=_measured(model, name, recipe, progress)))
        record = model.history[-1]
        facts = {**record.facts, "quality": dict(reference.quality(model))}
        model = replace(model, history=(*model.history[:-1], replace(record, facts=facts)))
    return settled(model, scratch)


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
    found = split(wanted, held_out=0, seed=recipe.seed).calibration
    held_out = {repr(sample.value) for sample in data.held_out}
    try:
        usable, _ = model.preprocessor.sift(found)
    except DataError as error:
        raise DataError(f"{options.data}: {error.message}", error.hint) from None
    return tuple(sample for sample in usable if repr(sample.value) not in held_out)


def _measured(model: TorchModel, name: str, recipe: Recipe, progress: Progress) -> LatencyTable | None:
    """Return the times that a technique asks for, measured here in the first target's types."""
    request = wanted_table(model, recipe.compress, name)
    if request is None:
        return None
    from edgekit.validate.width_table import measure_table

    progress("compress", "timing widths in ONNX Runtime", None)
    return measure_table(request, load_profile((*recipe.targets, _DEFAULT_TARGET)[0]))
