"""`finished`: a student that has learnt to compute with the codes of an 8-bit target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit.compress import AFTER_TRAINING
from edgekit.compress.base import watching
from edgekit.compress.feeding import fed
from edgekit.data import Sample
from edgekit.distill.fake_quant import BlockScales, InputCodes, with_codes, without_codes
from edgekit.distill.fingerprint import model_sha256
from edgekit.distill.learner import copied
from edgekit.distill.objective import Objective
from edgekit.distill.training import train
from edgekit.distill.weights import ON_LAYERS
from edgekit.distilling import Lesson, loss_on_the_way, plan_of, training_facts
from edgekit.errors import DataError, RecipeError
from edgekit.model import TorchModel
from edgekit.profile import TargetProfile, load_profile
from edgekit.quantize.blocks import BLOCK, MIDDLE, block_codes
from edgekit.quantize.linear import LinearRules, solve
from edgekit.quantize.observers import TensorStats
from edgekit.quantize.plan import SMALLEST_TABLE
from edgekit.quantize.schemes import ActivationScheme, Affine
from edgekit.quantize.tables import why_not_4_bits
from edgekit.quantize.trained import product_scales, row_scales
from edgekit.recipe import Recipe
from edgekit.record import Clock, Progress, silent
from edgekit.store import sha256_json
from edgekit.to_onnx.naming import path_in_graph
from edgekit.trained_scales import CodeRules, ProductScales, TableScales, TrainedScales

TASKS = (
    "sentence-embedding",
    "feature-extraction",
    "text-classification",
    "multi-label-text-classification",
    "token-classification",
)
"""Whose models are matrix products and tables."""

_RANGE_SAMPLES = 256
_EVALUATIONS = 10


@dataclass(frozen=True)
class Places:
    """Where a student computes in codes.

    Attributes:
        products: Linear modules, those together that read the same values.
        tables: Embedding modules.
    """

    products: tuple[tuple[str, ...], ...]
    tables: tuple[str, ...]


def finish_profile(recipe: Recipe, task: str) -> TargetProfile:
    """Return the target whose codes `[distill.finish]` trains with.

    Raises:
        RecipeError: No target is named, or the recipe, the task or the target has no place for a finish.
        ProfileError: There is no such target.
    """
    assert recipe.distill is not None and recipe.distill.finish is not None
    name = recipe.distill.finish.target or next(iter(recipe.targets), None)
    if name is None:
        raise RecipeError(
            "[distill.finish] has no target whose codes it could train with",
            'Give --finish-for TARGET, or target = "cpu-x86" in the table.',
        )
    profile = load_profile(name)
    rules = profile.quantization
    if task not in TASKS:
        raise RecipeError(
            f"[distill.finish] is nothing for {task}",
            f"It is for models of matrix products and tables: {', '.join(TASKS)}.",
        )
    if rules.scope != "kernels" or not rules.per_channel:
        how = "puts the whole graph in codes" if rules.scope != "kernels" else "has one scale per weight"
        raise RecipeError(
            f"[distill.finish] cannot train for {profile.name}, which {how}",
            "It trains matrix products with a scale per output channel, as targets for CPUs have them.",
        )
    if recipe.quantize.method == "none":
        raise RecipeError(
            '[distill.finish] trains for 8 bits, and quantize.method = "none" has none', "Leave one out."
        )
    later = [f"[compress.{name}]" for name in AFTER_TRAINING if getattr(recipe.compress, name) is not None]
    if later:
        raise RecipeError(
            f"{later[0]} changes weights after [distill.finish] has trained their codes",
            "Compress first, in a run of its own, and give the result as the student.",
        )
    return profile


def finished(
    student: TorchModel,
    teacher: TorchModel,
    recipe: Recipe,
    lesson: Lesson,
    state: Path,
    progress: Progress = silent,
) -> TorchModel:
    """Return the student after some more steps with a target's codes in them, and with those codes.

    Ranges of activations are chosen once, as the quantizer chooses them without smoothing, and stay. Scales
    of weights and rows follow the weights, as they do in the quantizer. Blocks of 4 bits keep the scales that
    the quantizer's search finds before the first step.

    Args:
        student: After its training in float.
        teacher: The original.
        recipe: Its `[distill.finish]` says how, its `[quantize]` how tables are stored.
        lesson: What the teacher teaches.
        state: Folder for checkpoints, where an interrupted finish goes on.
        progress: Told of the training's rate, loss and time left.

    Raises:
        RecipeError: As `finish_profile`.
        DataError: Something is other than what an interrupted finish began with.
        TrainingError: A loss became NaN or infinite.
    """
    options = recipe.distill
    assert options is not None and options.finish is not None
    clock, profile = Clock(), finish_profile(recipe, student.task)
    rules = CodeRules.of(profile.quantization)
    progress("distill", f"choosing the codes of {profile.name}", None)
    places = places_of(student, recipe, profile)
    scheme = ActivationScheme(profile.quantization.activation_type, rules.activation_symmetric)
    codes = _input_codes(student, places, lesson.samples[:_RANGE_SAMPLES], recipe, rules, scheme)
    blocks = blocks_of(student, places, four_bits=recipe.quantize.embeddings == "int4")
    coded = with_codes(student, {name: _for_module(codes[name], rules) for name in codes}, blocks)
    # Layers would need the teacher along, and teach what the student knows by now.
    weights = {name: value for name, value in lesson.weights.items() if name not in ON_LAYERS}
    losses = options.losses.model_copy(update={"comparisons_from": None})
    objective = Objective(teacher, lesson.cache, coded, weights or lesson.weights, losses, None, recipe.seed)
    steps = options.finish.steps
    plan = replace(
        plan_of(options, len(lesson.samples), recipe.seed),
        steps=steps,
        learning_rate=options.finish.learning_rate,
        evaluate_every=max(1, math.ceil(steps / _EVALUATIONS)),
        best_from=0,
    )
    asked = [options.losses.model_dump(mode="json"), profile.name, recipe.seed]
    trained = train(
        coded,
        lesson.samples,
        objective,
        plan,
        evaluate=lesson.evaluate,
        watch="closeness",
        folder=state,
        identity={**lesson.identity, "student": model_sha256(coded), "options": sha256_json(asked)},
        progress=progress,
    )
    plain = without_codes(trained.student, student)
    scales = _scales(plain, profile.name, rules, codes, blocks)
    record = clock.record(
        "distill",
        "finish",
        f"Trained for {trained.steps_run:,} steps more with the codes of {profile.name} in"
        f" {len(codes)} matrix products and {len(blocks)} tables; with them, {loss_on_the_way(trained)}.",
        target=profile.name,
        products=len(codes),
        tables={path_in_graph(name): "int8" if own is None else "int4" for name, own in blocks.items()},
        **training_facts(trained, plan, weights or lesson.weights, lesson),
    )
    return replace(plain, trained=scales, history=(*student.history, record))


def places_of(student: TorchModel, recipe: Recipe, profile: TargetProfile) -> Places:
    """Return where the quantizer will put codes: what the outputs depend on and the recipe leaves in.

    Args:
        student: Run once, on its examples.
        recipe: Its `[quantize]` may exclude products by the names of their nodes.
        profile: The target.
    """
    probe = copied(student, torch.device("cpu"))
    module = probe.module.requires_grad_(True)
    linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    tables = [name for name, part in module.named_modules() if isinstance(part, nn.Embedding)]
    read: dict[str, set[tuple[int, ...]]] = {}
    alive = []  # so that no two of them have the same address

    def see(name: str, x: torch.Tensor, output: torch.Tensor) -> None:
        alive.append(x)
        read.setdefault(name, set()).add((x.data_ptr(), x.numel()))

    inputs = {name: torch.from_numpy(value) for name, value in probe.example_inputs.items()}
    with watching(module, linear, see), torch.enable_grad():
        returned = module(**inputs)
        values = returned.values() if isinstance(returned, Mapping) else returned
        torch.stack([value.float().square().sum() for value in values]).sum().backward()
    weights = {name: module.get_submodule(name).get_parameter("weight") for name in (*linear, *tables)}
    shared = {id(weights[name]) for name in linear} & {id(weights[name]) for name in tables}
    groups: dict[frozenset[tuple[int, ...]], list[str]] = {}
    for name in linear:
        if weights[name].grad is not None and not _excluded(name, recipe.quantize.exclude):
            groups.setdefault(frozenset(read[name]), []).append(name)
    kept = [
        name
        for name in tables
        if weights[name].grad is not None
        and id(weights[name]) not in shared
        and weights[name].numel() >= SMALLEST_TABLE
        and profile.quantization.embeddings == "int8-per-row"
    ]
    return Places(tuple(map(tuple, groups.values())), tuple(kept))


def _excluded(name: str, patterns: Sequence[str]) -> bool:
    nodes = [f"{path_in_graph(name)}/{op}" for op in ("MatMul", "Gemm")]
    return any(fnmatch(node, pattern) for node in nodes for pattern in patterns)


def _input_codes(
    student: TorchModel,
    places: Places,
    samples: Sequence[Sample],
    recipe: Recipe,
    rules: CodeRules,
    scheme: ActivationScheme,
) -> dict[str, Affine]:
    """Return the codes of what each product reads, by the least error of the products that read it."""
    firsts = {group[0]: group for group in places.products}
    seen = {name: TensorStats(-1) for name in firsts}

    def see(name: str, x: torch.Tensor, output: torch.Tensor) -> None:
        seen[name].update(x.numpy())

    with watching(student.module, list(firsts), see), torch.no_grad():
        for sample in samples:  # one by one: padding is not to count
            student.module(**fed(student, [sample]))
    found: dict[str, Affine] = {}
    chosen = LinearRules(
        scheme,
        rules.per_channel,
        rules.reduce_range,
        False,
        recipe.quantize.range_method,
        recipe.quantize.percentile,
    )
    for name, group in firsts.items():
        if not seen[name].finite or not seen[name].count:
            raise DataError(
                f"what {path_in_graph(name)} reads is not finite on the data", "Check the weights."
            )
        weights = [_weight(student, part).T for part in group]
        found |= dict.fromkeys(group, solve(seen[name], weights, chosen, free=False).affine)
    return found


def blocks_of(student: TorchModel, places: Places, *, four_bits: bool) -> dict[str, BlockScales | None]:
    """Return the codes of tables: blocks for those that are stored in 4 bits, None for those in 8.

    Args:
        student: With the tables.
        places: Where they are.
        four_bits: Large ones are stored in 4 bits.
    """
    tables = {name: _weight(student, name) for name in places.tables}
    largest = max((table.size for table in tables.values()), default=0)
    found: dict[str, BlockScales | None] = dict.fromkeys(tables)
    for name, table in tables.items():
        if four_bits and not why_not_4_bits(table, largest):
            codes = block_codes(table)
            zero = codes.zero_point
            own = np.full(codes.scale.shape, MIDDLE, np.uint8) if zero is None else zero
            found[name] = BlockScales(BLOCK, codes.scale, own)
    return found


def _scales(
    student: TorchModel,
    target: str,
    rules: CodeRules,
    codes: Mapping[str, Affine],
    blocks: Mapping[str, BlockScales | None],
) -> TrainedScales:
    """Return the codes of the trained student, under the names that its weights have in a graph."""
    products = {
        path_in_graph(name): ProductScales(
            affine.scale,
            affine.zero_point - affine.scheme.qmin,
            product_scales(_weight(student, name), rules),
        )
        for name, affine in codes.items()
    }
    tables = {}
    for name, own in blocks.items():
        if own is None:
            found = TableScales(row_scales(_weight(student, name)))
        else:
            found = TableScales(own.scale, None if np.all(own.zero_point == MIDDLE) else own.zero_point)
        tables[path_in_graph(name)] = found
    return TrainedScales(target, rules, products, tables)


def _for_module(affine: Affine, rules: CodeRules) -> InputCodes:
    scheme = affine.scheme
    return InputCodes(affine.scale, affine.zero_point, scheme.qmin, scheme.qmax, rules.reduce_range)


def _weight(student: TorchModel, name: str) -> np.ndarray:
    return student.module.get_submodule(name).get_parameter("weight").detach().numpy()
