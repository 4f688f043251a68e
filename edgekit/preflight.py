"""What is checked and read before the work begins, so that a wrong request costs seconds and not minutes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.data import DataAudit, Sample, draw, split
from edgekit.errors import DataError, OutputExistsError, RecipeError, nearest
from edgekit.model import TorchModel
from edgekit.profile import Ship, TargetProfile, load_profile, lowered_to
from edgekit.recipe import Pinned, Recipe
from edgekit.record import Clock, Skip, Verdict
from edgekit.runners.table import refuse_unknown_runners
from edgekit.store import refuse_existing, refuse_unwritable, sha256_json
from edgekit.tasks import TASKS, task_named


@dataclass(frozen=True)
class UserData:
    """The user's samples for two purposes that share none, and what was found in their files.

    Attributes:
        calibration: Samples that statistics are taken from; empty where nothing is quantized.
        held_out: Samples that parity is measured on.
        audits: `calibration` and `validation` -> audit of the file; one of them where one file served both.
    """

    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    audits: dict[str, DataAudit]

    def sha256(self, purpose: str) -> str | None:
        """Return the digest of the file that served a purpose, or None."""
        return self.audits[purpose].sha256 if purpose in self.audits else None


def resolve(recipe: Recipe) -> tuple[TargetProfile, ...]:
    """Return the profiles that a recipe names, after the checks that need neither the model nor the data.

    Raises:
        ProfileError: A target is unknown or its file is wrong.
        RecipeError: A target is named twice, a task or a gate is unknown, or two choices contradict.
        RunnerMissingError: A runner that is asked for is unknown or not ready.
    """
    if not recipe.targets:
        raise RecipeError("the request names no target", "Give -t / --target (or 'targets' in the recipe).")
    profiles = tuple(load_profile(target) for target in recipe.targets)
    if recipe.min_runtime is not None:
        profiles = tuple(lowered_to(profile, recipe.min_runtime) for profile in profiles)
    names = [profile.name for profile in profiles]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise RecipeError(f"the target '{twice[0]}' is given twice", "Name each target once.")
    if recipe.quantize.method == "none" and recipe.ship not in (None, "float"):
        raise RecipeError(
            f"nothing is quantized (quantize.method is 'none'), so '{recipe.ship}' cannot be shipped",
            "Leave --method none or --ship out.",
        )
    refuse_unknown_gates(recipe.gates, TASKS if recipe.task is None else [task_named(recipe.task).name])
    for profile in profiles:
        refuse_tables(recipe, profile)
        refuse_unknown_gates(profile.policy.gates, TASKS)
        refuse_unknown_runners(profile, recipe.verify.on)
    return profiles


def ship_of(recipe: Recipe, profile: TargetProfile) -> Ship:
    """Return which form a target's package is to hold."""
    return "float" if recipe.quantize.method == "none" else recipe.ship or profile.policy.ship


def calibrates(recipe: Recipe, profile: TargetProfile) -> bool:
    """Return whether a target needs calibration: dynamic int8 and float do without."""
    if recipe.quantize.method == "none":
        return False
    return recipe.latency.candidates or ship_of(recipe, profile) in ("static", "best")


def refuse_tables(recipe: Recipe, profile: TargetProfile) -> None:
    """Raise `RecipeError` if the request wants embedding tables in a form that a target does not have."""
    wanted, rules = recipe.quantize.embeddings, profile.quantization
    if wanted is None:
        return
    ships = ship_of(recipe, profile)
    if ships not in ("static", "best"):
        why = f"it ships the {ships} form, and only static int8 has tables of this kind"
    elif rules.embeddings != "int8-per-row":
        why = f"it stores embedding tables {rules.embeddings.replace('-', ' ')}"
    elif wanted == "int4" and rules.int4_tables == "none":
        why = "its runtime does not read such tables"
    else:
        return
    raise RecipeError(
        f"--embeddings {wanted} is nothing for the target {profile.name}: {why}",
        "Leave --embeddings out for this target.",
    )


def refuse_output(output: Path, recipe: Recipe, *, force: bool, marker: str = "report.json") -> None:
    """Refuse an output that cannot be written, or that would take the place of something else.

    Args:
        output: The folder to make.
        recipe: The request; its inputs may not lie in the output.
        force: An earlier output may be replaced.
        marker: The file by which an earlier output is known.

    Raises:
        OutputExistsError: It is there and `force` is False, is no earlier output, or holds an input.
        StorageError: It could not be made.
    """
    refuse_existing(output, force=force)
    refuse_unwritable(output)
    data = (recipe.calibration.data, recipe.validation.data, recipe.compress.data)
    learnt = (recipe.distill.data, recipe.distill.student) if recipe.distill else ()
    inputs = (recipe.model, recipe.model_options.weights, *data, *learnt, *recipe.targets, ".")
    for name in filter(None, inputs):
        # not Path.exists, which raises for a name that no file can have
        if os.path.exists(name) and Path(name).resolve().is_relative_to(output.resolve()):  # noqa: PTH110
            what = "is the working directory or holds it" if name == "." else f"holds the input {name}"
            raise OutputExistsError(f"the output folder {output} {what}", "Choose another -o folder.")
    if output.is_dir() and any(output.iterdir()) and not (output / marker).is_file():
        raise OutputExistsError(
            f"the output folder {output} holds files that are no earlier output, and --force keeps those",
            "Choose another -o folder, or empty this one.",
        )
    failed = failed_folder(output)
    if failed.exists() and not (failed / "report.json").is_file():
        raise OutputExistsError(
            f"{failed} is where the report goes if a gate fails, and it holds something else",
            "Move it away, or choose another -o folder.",
        )


def read_data(recipe: Recipe, *, calibrates: bool) -> UserData:
    """Return the calibration samples and the held-out ones that parity is measured on.

    Args:
        recipe: The request.
        calibrates: Whether any target needs calibration.

    Raises:
        DataError: There is no data, or it cannot be used.
    """
    if recipe.calibration.data is None and (calibrates or recipe.validation.data is None):
        purpose = "static quantization" if calibrates else "validation"
        raise DataError(
            f"{purpose} needs real data and none was given",
            "Give --calibration FILE: .txt, .jsonl, .csv, .npz or a folder of images; never random data.",
        )
    if recipe.calibration.data is None:
        apart = draw(recipe.validation, seed=recipe.seed)
        return UserData((), apart.held_out, {"validation": apart.audit})
    if recipe.validation.data is None:
        both = split(recipe.calibration, held_out=recipe.validation.samples, seed=recipe.seed)
        return UserData(both.calibration, both.held_out, {"calibration": both.audit})
    first = split(recipe.calibration, held_out=0, seed=recipe.seed)
    apart = draw(recipe.validation, seed=recipe.seed, exclude=first.calibration)
    audits = {"calibration": first.audit, "validation": apart.audit}
    return UserData(first.calibration, apart.held_out, audits)


def sift(model: TorchModel, data: UserData, recipe: Recipe) -> tuple[TorchModel, UserData]:
    """Return model and data without the samples that mean nothing to the model; its history tells of them.

    Raises:
        DataError: The samples are not what the model takes, or most of them mean nothing to it.
    """
    clock = Clock()
    skipped: list[Skip] = []

    def kept(samples: tuple[Sample, ...], name: str | None) -> tuple[Sample, ...]:
        try:
            usable, left_out = model.preprocessor.sift(samples)
        except DataError as error:
            raise DataError(f"{name}: {error.message}", error.hint) from None
        skipped.extend(left_out)
        return usable

    calibration = kept(data.calibration, recipe.calibration.data)
    held_out = kept(data.held_out, recipe.validation.data or recipe.calibration.data)
    if not skipped:
        return model, data
    did = f"left out {len(skipped)} of {len(data.calibration) + len(data.held_out)} samples"
    record = clock.record("load", "sift", did, skipped=tuple(skipped))
    return (
        replace(model, history=(*model.history, record)),
        replace(data, calibration=calibration, held_out=held_out),
    )


def pin(recipe: Recipe, model: TorchModel, data: UserData, profiles: Sequence[TargetProfile]) -> Recipe:
    """Return the recipe with its task and the digests of its inputs filled in.

    Raises:
        RecipeError: The recipe is pinned to other inputs.
    """
    found = Pinned(
        profile_sha256=profile_sha256(profiles[0]) if len(profiles) == 1 else None,
        model_sha256=model.source_sha256,
        calibration_sha256=data.sha256("calibration"),
        validation_sha256=data.sha256("validation"),
    )
    for key, pinned in recipe.pinned.model_dump(exclude_none=True).items():
        if getattr(found, key) != pinned:
            what = key.removesuffix("_sha256")
            raise RecipeError(
                f"the {what} is not the one that the recipe was made with (its SHA-256 differs)",
                f"Restore the {what}, or remove pinned.{key} from the recipe to accept the new one.",
            )
    return recipe.model_copy(update={"task": model.task, "pinned": found})


def profile_sha256(profile: TargetProfile) -> str:
    """Return the digest of a profile's rules, without what only tells about them."""
    return sha256_json(profile.model_dump(mode="json", exclude={"sources", "status", "title"}))


def known_gates(task: str) -> tuple[str, ...]:
    """Return the names that `--gate` takes for a task; `<name>.<output>` gates a single output."""
    found = task_named(task)
    audited = ("range_growth", "clip_rate")  # of edgekit.quantize.audit, which loads too much for here
    return (*(gate.name for gate in found.gates), *found.shown, "size_ratio", "speedup", *audited)


def refuse_unknown_gates(gates: Iterable[str], tasks: Iterable[str]) -> None:
    """Raise `RecipeError` if a gate is none that a model for one of these tasks can have."""
    known = {name for task in tasks for name in known_gates(task)}
    for gate in sorted(gates):
        if gate not in known and gate.partition(".")[0] not in known:
            raise RecipeError(f"unknown gate '{gate}'", nearest(gate, known))


def refuse_unmeasured_gates(recipe: Recipe, verdicts: Sequence[Verdict]) -> None:
    """Raise `RecipeError` if the request has a threshold for something that was not measured."""
    for gate in sorted(recipe.gates):
        if not any(check.name == gate for verdict in verdicts for check in verdict.checks):
            known = {check.name for verdict in verdicts for check in verdict.checks}
            why = " because the data has no labels" if gate.startswith("accuracy") else ""
            raise RecipeError(f"the gate '{gate}' was not measured{why}", nearest(gate, known))


def failed_folder(output: Path) -> Path:
    """Return where the report goes if a gate fails."""
    return output.with_name(f"{output.name}.failed")
