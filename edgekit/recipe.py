"""`Recipe`: the whole request, frozen. What the flags can say, a recipe file can say.

Relative paths mean the same in a recipe as on the command line: relative to the working directory.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.compression import CompressOptions
from edgekit.distillation import DistillOptions
from edgekit.errors import RecipeError
from edgekit.profile import Finite, PositiveInt, Ship, explain


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelOptions(_Table):
    """How the model may be loaded; see `edgekit.model.ModelRef`."""

    revision: str | None = None
    allow_pickle: bool = False
    max_length: PositiveInt | None = None
    weights: str | None = None


class DataOptions(_Table):
    """One file or folder of the user's samples.

    Attributes:
        data: `.txt`, `.jsonl`, `.csv`, `.npz`, or a folder of images; None where none is given.
        column: Column of a `.csv` or key of a `.jsonl` that holds the sample.
        label_column: Column or key that holds the label.
        samples: How many samples to use at most.
    """

    data: str | None = None
    column: str | None = None
    label_column: str | None = None
    samples: PositiveInt = 256


class ValidationOptions(DataOptions):
    """The samples that parity is measured on; without `data` they are held out from the calibration's."""

    samples: PositiveInt = 128


class QuantizeOptions(_Table):
    """Choices of the quantizer that are not the target's.

    Attributes:
        method: `static` int8, or `none` to ship the float graph.
        smoothing: Migrate activation outliers into weights where it lowers a layer's output error.
        bias_correction: Put the mean error that quantization makes into the bias.
        range_method: How a tensor's range is chosen from its statistics.
        percentile: Two-sided coverage for `range_method = "percentile"`, in percent.
        rounding: `nearest`, or `compensated`: each weight's error is made up for by those rounded after it.
        embeddings: How tables read by `Gather` are stored: `int8` with a scale per row, `int4` with one per
            block of 32 numbers (small tables stay int8). None takes the target's.
        mixed: Leave the layers that lose most in float where the gates would fail, as few as it takes.
        max_drop: Loss against float that is allowed of the task's main measure, 0.01 being a point: of
            accuracy, or without labels of equal decisions; of the F1 of labels; of the mean cosine and the
            rank correlation; of a generic output's norm. None takes the thresholds of task and target.
        exclude: Names of nodes (shell patterns) to leave in float.
    """

    method: Literal["static", "none"] = "static"
    smoothing: bool = True
    bias_correction: bool = True
    range_method: Literal["mse", "minmax", "percentile", "entropy"] = "mse"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    rounding: Literal["nearest", "compensated"] = "compensated"
    embeddings: Literal["int8", "int4"] | None = None
    mixed: bool = True
    max_drop: Annotated[float, Field(gt=0, lt=1)] | None = None
    exclude: tuple[str, ...] = ()


class LatencyOptions(_Table):
    """How latency is measured.

    Attributes:
        runs: Timed runs of each model at each point; 0 measures no latency.
        threads: Intra-op threads; None takes the target's.
        candidates: Also make and time the other forms: the rewritten float graph and dynamic int8.
    """

    runs: Annotated[int, Field(ge=0)] = 60
    threads: PositiveInt | None = None
    candidates: bool = False


class VerifyOptions(_Table):
    """Where else the packages are run before they are written.

    Attributes:
        on: Runners beside the target's own, as `edgekit runners` lists them; `all` is every ready one. A
            named one that is not ready is an error.
        timeout_s: Seconds after which a runner counts as hung.
    """

    on: tuple[str, ...] = ()
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300.0


class Pinned(_Table):
    """Digests of the inputs that made a package; another input under the same name is refused."""

    model_sha256: str | None = None
    profile_sha256: str | None = None
    calibration_sha256: str | None = None
    validation_sha256: str | None = None


class Recipe(_Table):
    """The whole request of one `edgekit export`.

    Attributes:
        edgekit_schema: Version of this format.
        model: Directory, Hub id, or `package.module:factory`.
        task: Name of the task; None infers it.
        targets: Profile names or paths of profile files; none where the model is only compressed.
        seed: Seed of every choice that is random: the subset of samples, the order.
        ship: The form of the model that goes into the packages; None takes each target's.
        min_runtime: Oldest release of ONNX Runtime that has to load the files; opset and IR version are
            lowered to what it reads. None takes each target's.
        keep_float: Also keep the float graph, as `float-opset<N>.onnx` beside the packages.
        gates: Check name -> threshold; overrides the task's and the profile's.
    """

    edgekit_schema: Literal[1] = 1
    model: str
    task: str | None = None
    targets: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    model_options: ModelOptions = ModelOptions()
    calibration: DataOptions = DataOptions()
    validation: ValidationOptions = ValidationOptions()
    compress: CompressOptions = CompressOptions()
    distill: DistillOptions | None = None
    quantize: QuantizeOptions = QuantizeOptions()
    latency: LatencyOptions = LatencyOptions()
    verify: VerifyOptions = VerifyOptions()
    ship: Ship | None = None
    min_runtime: str | None = None
    keep_float: bool = False
    gates: dict[str, Finite] = Field(default_factory=dict)
    pinned: Pinned = Pinned()


def recipe_from_table(table: dict[str, Any], what: str = "recipe") -> Recipe:
    """Return the recipe that a table describes.

    Raises:
        RecipeError: A key is unknown (the nearest is named), missing, or has a wrong value.
    """
    try:
        recipe = Recipe.model_validate(table)
        to_toml(recipe).encode("utf-8")
    except ValidationError as error:
        raise RecipeError(*explain(error, Recipe, what)) from None
    except UnicodeEncodeError as error:  # a file name that is not UTF-8 arrives as lone surrogates
        line = error.object[: error.end].rpartition("\n")[2].encode("utf-8", "backslashreplace").decode()
        raise RecipeError(f"{what}: not valid Unicode: {line}", "Rename the file or folder.") from None
    return recipe


def read_table(path: Path) -> dict[str, Any]:
    """Return the table of a recipe file, unchecked, so that flags can be laid over it.

    Raises:
        RecipeError: The file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"recipe not found: {path}", "Check the path given to --recipe.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is not valid TOML: {error}") from None
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}") from None


def overlay(table: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Return `table` with `flags` laid over it; a flag that is None or an empty table says nothing."""
    merged = dict(table)
    for key, value in flags.items():
        if isinstance(value, dict):
            inner = merged.get(key, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"recipe: '{key}' must be a table")
            merged[key] = overlay(inner, value)
        elif value is not None:
            merged[key] = value
    return merged


def to_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML, every value spelled out, in the order of the fields."""
    plain = recipe.model_dump(mode="json", exclude_none=True)
    if not recipe.compress.techniques:
        del plain["compress"]
    return "\n".join(_toml_lines(plain, ())) + "\n"


def _toml_lines(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """Return a table's own values, then its tables, each under its dotted name."""
    lines = [f"{_toml_key(k)} = {_toml(value)}" for k, value in table.items() if not isinstance(value, dict)]
    if path and lines:
        lines = ["", f"[{'.'.join(map(_toml_key, path))}]", *lines]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _toml_lines(value, (*path, key))
    return lines


def _toml_key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _toml(key)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)
