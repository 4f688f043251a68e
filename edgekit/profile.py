"""`TargetProfile`: everything that is particular to a device, read from `targets/*.toml`.

A profile's file stem is its name. `extends` names another profile whose keys it inherits, table by table.
Unknown keys are errors. `[sources]` says where each value that is not obvious comes from.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.errors import ProfileError, nearest

PositiveInt = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


ConvOp = Literal[
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "Sigmoid",
    "LeakyRelu",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
    "Flatten",
    "Reshape",
]
"""Op types that ONNX Runtime runs on 8-bit values from input to output.
Source: onnxruntime core/optimizer/qdq_transformer/selectors_actions/qdq_selector_action_transformer.cc."""


_READS: dict[tuple[int, int], tuple[int, int]] = {
    (1, 14): (18, 8),
    (1, 15): (19, 9),
    (1, 17): (20, 9),
    (1, 18): (21, 10),
    (1, 21): (22, 10),
    (1, 23): (23, 11),
    (1, 24): (25, 13),
    (1, 25): (26, 13),
}
"""First release -> newest opset and IR version that it and those up to the next entry read.

Source: onnxruntime docs/Versioning.md; measured with the runners ort-1.18.0 to ort-1.30.0.
"""


class _Table(BaseModel):
    """A TOML table: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Hardware(_Table):
    """The CPU that the profile is for.

    Attributes:
        isa: Instruction set as the device's operating system names it.
        os: Operating system, where times taken under another one say nothing about the device.
        needs: CPU features that must all be there for the profile's kernels (names of /proc/cpuinfo).
        needs_any: CPU features of which at least one must be there; empty asks for none.
        lacks: CPU features that the target's CPUs do not have. Where one is there, the runtime takes faster
            kernels, so a time measured on that machine is not the target's.
        saturates: True where the int8 kernels add products in saturating 16-bit lanes.
    """

    isa: Literal["x86_64", "aarch64", "armv7l", "wasm32"]
    os: Literal["android", "ios"] | None = None
    needs: tuple[str, ...] = ()
    needs_any: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    saturates: bool = False


class StaticShape(_Table):
    """The one shape of inputs that a graph is exported for.

    Attributes:
        batch: Samples per run.
        sequence: Tokens of a text, padding included; models without sequences do not have it.
    """

    batch: Literal[1] = 1
    sequence: PositiveInt = 128


class Onnx(_Table):
    """Versions that the file is written with, and the runtime that reads it.

    Attributes:
        opset: Version of the default operator set.
        ir_version: Version of the file format.
        min_runtime: Oldest ONNX Runtime release that loads the file.
        static_shape: The only shape that the graph takes; without it, batch and length vary.
    """

    opset: PositiveInt
    ir_version: PositiveInt
    min_runtime: str
    static_shape: StaticShape | None = None


class Quantization(_Table):
    """Rules of static quantization on this target.

    Attributes:
        scope: `kernels` quantizes what has int8 kernels on CPUs; `whole-graph` every float tensor, for
            processors that compute in integers alone.
        activation_type: Type of quantized activations; 16 bits need the whole graph.
        weight_type: Type of quantized weights.
        activation_symmetric: Put the activations' zero point in the middle.
        per_channel: One weight scale per output channel instead of one per tensor.
        reduce_range: Weights that saturating kernels cannot overflow: 7 bits (-64..64) in convolutions, in
            matrix products only as much as their largest pair of neighbours needs.
        embeddings: How tables read by `Gather` are stored; in a whole graph, as the activations are.
        int4_tables: What reads a table that a request wants in 4 bits: standard operators, or one of ONNX
            Runtime's own, which is there from 1.20 on; `none` refuses such a request.
        matmul_ops: Op types quantized where their weight is constant, outputs left in float.
        conv_ops: Op types quantized with their outputs, in graphs that contain a convolution.
        float_entries: Leave small and depthwise convolutions that read float values in float, where they are
            faster.
    """

    scope: Literal["kernels", "whole-graph"] = "kernels"
    activation_type: Literal["uint8", "int8", "uint16"]
    weight_type: Literal["int8"]
    activation_symmetric: bool = False
    per_channel: bool = True
    reduce_range: bool = False
    embeddings: Literal["int8-per-row", "float", "as-activations"] = "int8-per-row"
    int4_tables: Literal["standard-operators", "gather-block-quantized", "none"] = "standard-operators"
    matmul_ops: tuple[Literal["MatMul", "Gemm"], ...] = ("MatMul", "Gemm")
    conv_ops: tuple[ConvOp, ...] = get_args(ConvOp)
    float_entries: bool = False


SpeedRewrite = Literal["divide-by-root", "tanh-gelu", "rows", "packed-projections"]
"""Rewrites of the float graph that are a matter of speed, in the order they are done."""

Rewrite = Literal[SpeedRewrite, "finite-masks", "l2-normalization"]
"""All rewrites that a profile can name; the last ones are what processors for whole graphs need."""


class Optimize(_Table):
    """What is done to the float graph because it pays on the target's CPUs.

    Attributes:
        rewrites: Those that were measured to win, or that its processor needs; what correctness or
            quantization needs on every CPU is always done.
    """

    rewrites: tuple[Rewrite, ...] = get_args(SpeedRewrite)


class Runtime(_Table):
    """How an app opens the session, and how latency is measured.

    Attributes:
        threads: Intra-op threads.
        points: (batch, length) pairs at which text models are timed; other models use the batches only.
        session_options: ONNX Runtime session configuration entries that belong to the artifact.
    """

    threads: PositiveInt = 1
    points: tuple[tuple[PositiveInt, PositiveInt], ...] = ((1, 16), (1, 128), (8, 64))
    session_options: dict[str, str] = Field(default_factory=dict)


class Packaging(_Table):
    """What the package holds beside `model.onnx`.

    Attributes:
        ort_format: Also write `model.ort` and the list of operators that it needs.
        ort_platform: Platform that the ORT-format file is optimized for.
        htp_archs: Generations of Qualcomm's Hexagon processor that `model.htp-v<number>.onnx` is compiled
            for; not where the kit `qnn` is not installed, and then the package says so.
    """

    ort_format: bool = False
    ort_platform: Literal["arm", "amd64"] | None = None
    htp_archs: tuple[Literal["68", "69", "73", "75", "79"], ...] = ()


Ship = Literal["static", "dynamic", "float", "best"]
"""Which form of a model goes into the package; `best` builds them all and lets the figures choose."""


class Policy(_Table):
    """What the target wants quantization for, and what counts as good enough.

    Attributes:
        wants: What quantization is for. `speed` notes it in the report when int8 is not faster. `best` ships
            the fastest form, or the smallest.
        ship: The form to ship. `static` costs no measuring; layers that lose too much stay float in it.
        min_size_ratio: Float bytes over quantized bytes that the file must reach at least.
        gates: Overrides of task thresholds, by check name.
    """

    wants: Literal["speed", "size"] = "speed"
    ship: Ship = "static"
    min_size_ratio: Finite | None = None
    gates: dict[str, Finite] = Field(default_factory=dict)


class Verify(_Table):
    """Where the target's files are run to prove them.

    Attributes:
        on: Runners that stand for the target's devices, as `edgekit runners` lists them. Those that are
            installed gate an export; the others are named in its report.
    """

    on: tuple[str, ...] = ()


class TargetProfile(_Table):
    """One device profile.

    Attributes:
        name: Stem of its file.
        title: One line that says which devices it is for.
        status: What has been proved about it, one sentence.
        sources: Dotted key -> where the value comes from.
    """

    name: str
    title: str
    status: str
    hardware: Hardware
    onnx: Onnx
    quantization: Quantization
    optimize: Optimize = Optimize()
    runtime: Runtime = Runtime()
    packaging: Packaging = Packaging()
    policy: Policy = Policy()
    verify: Verify = Verify()
    sources: dict[str, str] = Field(default_factory=dict)


def targets_dir() -> Path:
    """Return the folder that holds the built-in profiles: inside the wheel, or beside the checkout."""
    package = Path(str(files("edgekit")))
    installed = package / "_targets"
    return installed if installed.is_dir() else package.parent / "targets"


def available() -> tuple[str, ...]:
    """Return the names of the built-in profiles, sorted."""
    return tuple(sorted(path.stem for path in targets_dir().glob("*.toml")))


def load_profile(target: str) -> TargetProfile:
    """Return the profile that a `--target` value names.

    Args:
        target: A built-in name, or a path to a TOML file (anything that ends in `.toml`).

    Raises:
        ProfileError: The name is unknown, the file cannot be read, a key is unknown or a value is wrong.
    """
    if target.endswith(".toml"):
        path = Path(target)
        if not path.is_file():
            raise ProfileError(f"target file not found: {target}", "Check the path given to --target.")
    elif target in available():
        path = targets_dir() / f"{target}.toml"
    else:
        raise ProfileError(f"unknown target '{target}'", nearest(target, available()))
    return profile_from_table(path.stem, _read_with_bases(path, ()))


def profile_from_table(name: str, table: dict[str, Any]) -> TargetProfile:
    """Return the profile that a parsed TOML table describes, `extends` already resolved.

    Raises:
        ProfileError: A key is unknown (the nearest known one is named), missing, or has a wrong value.
    """
    what = f"target '{name}'"
    if "name" in table:
        raise ProfileError(f"{what}: unknown key 'name'", "A target is named by the stem of its file.")
    try:
        profile = TargetProfile.model_validate({"name": name, **table})
    except ValidationError as error:
        missing_hint = 'Add it, or inherit it with extends = "...".'
        raise ProfileError(*explain(error, TargetProfile, what, missing_hint)) from None
    opset, ir_version = newest_read_by(profile.onnx.min_runtime, what)
    if profile.onnx.opset > opset or profile.onnx.ir_version > ir_version:
        raise ProfileError(
            f"{what}: ONNX Runtime {profile.onnx.min_runtime} (onnx.min_runtime) reads files up to opset"
            f" {opset} and IR {ir_version}, not opset {profile.onnx.opset} and IR {profile.onnx.ir_version}",
            "Lower onnx.opset and onnx.ir_version, or let --min-runtime do it.",
        )
    unknown = [key for key in profile.sources if not _has_key(profile, key)]
    if unknown:
        raise ProfileError(
            f"{what}: [sources] names a key that does not exist: {unknown[0]}",
            "Use dotted keys such as 'quantization.reduce_range'.",
        )
    _refuse_contradictions(profile, what)
    return profile


def _refuse_contradictions(profile: TargetProfile, what: str) -> None:
    """Raise where keys that are right one by one do not fit together.

    Raises:
        ProfileError: They do not; the error names both.
    """
    rules, onnx = profile.quantization, profile.onnx
    whole = rules.scope == "whole-graph"
    if rules.activation_type == "uint16" and not whole:
        raise ProfileError(
            f"{what}: quantization.activation_type = 'uint16' needs quantization.scope = 'whole-graph'",
            "No kernel of ONNX Runtime's CPU computes with 16-bit codes; use 'uint8' or 'int8'.",
        )
    if rules.activation_type == "uint16" and onnx.opset < 21:
        raise ProfileError(
            f"{what}: 16-bit codes need onnx.opset 21 or newer, and it is {onnx.opset}",
            "Source: ONNX operator QuantizeLinear, version 21.",
        )
    if whole and onnx.static_shape is None:
        raise ProfileError(
            f"{what}: quantization.scope = 'whole-graph' needs onnx.static_shape",
            "Processors that run whole graphs compile them for one shape: static_shape = { sequence = 128 }.",
        )
    if rules.int4_tables == "gather-block-quantized" and (
        onnx.ir_version < 10 or _release(onnx.min_runtime, what) < (1, 20)
    ):
        raise ProfileError(
            f"{what}: quantization.int4_tables = 'gather-block-quantized' needs onnx.min_runtime 1.20 and"
            f" onnx.ir_version 10 or newer, and they are {onnx.min_runtime} and {onnx.ir_version}",
            "Take 'standard-operators', or let the target need a newer runtime.",
        )
    if whole != (rules.embeddings == "as-activations"):
        raise ProfileError(
            f"{what}: quantization.embeddings = '{rules.embeddings}' does not fit"
            f" quantization.scope = '{rules.scope}'",
            "A whole graph has embeddings = 'as-activations', and only a whole graph has.",
        )


def newest_read_by(release: str, what: str = "--min-runtime") -> tuple[int, int]:
    """Return the newest opset and IR version that a release of ONNX Runtime reads.

    Args:
        release: E.g. `1.18`.
        what: What names the release, for the message.

    Raises:
        ProfileError: It is no release, or older than the oldest opset that can be exported.
    """
    wanted = _release(release, what)
    fitting = [limits for since, limits in _READS.items() if since <= wanted]
    if not fitting:
        raise ProfileError(
            f"{what}: ONNX Runtime {release} reads no operator set that can be exported",
            "The oldest that does is 1.14.",
        )
    return fitting[-1]


def _release(text: str, what: str) -> tuple[int, ...]:
    """Return the first two numbers of a release."""
    try:
        found = tuple(int(part) for part in text.split("."))[:2]
    except ValueError:
        found = ()
    if len(found) < 2:
        raise ProfileError(f"{what}: '{text}' is not a release of ONNX Runtime", "Write e.g. 1.18.")
    return found


def lowered_to(profile: TargetProfile, release: str) -> TargetProfile:
    """Return the profile with another oldest runtime, opset and IR version lowered to what that reads.

    Raises:
        ProfileError: It is no release, or too old for the profile's rules.
    """
    opset, ir_version = newest_read_by(release)
    lowered = {
        "opset": min(profile.onnx.opset, opset),
        "ir_version": min(profile.onnx.ir_version, ir_version),
        "min_runtime": release,
    }
    profile = profile.model_copy(update={"onnx": profile.onnx.model_copy(update=lowered)})
    _refuse_contradictions(profile, f"target '{profile.name}' for ONNX Runtime {release}")
    return profile


def explain(
    error: ValidationError, root: type[BaseModel], what: str, missing_hint: str = "Add it."
) -> tuple[str, str]:
    """Turn the first problem that pydantic found into a message and a hint.

    Args:
        error: What pydantic raised.
        root: The model that was validated.
        what: Name of the file or table, for the message.
        missing_hint: What to do about a key that has to be there and is not.
    """
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    dotted = ".".join(parts)
    if first["type"] == "extra_forbidden":
        return f"{what}: unknown key '{dotted}'", nearest(parts[-1], _keys_at(root, parts[:-1]))
    if first["type"] == "missing":
        return f"{what}: the key '{dotted}' is missing", missing_hint
    return f"{what}: {dotted}: {first['msg']} (got {first.get('input')!r})", ""


def _keys_at(root: type[BaseModel], path: list[str]) -> list[str]:
    """Return the field names of the table that `path` leads to."""
    model: type[BaseModel] = root
    for part in path:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    return list(model.model_fields)


def _has_key(profile: TargetProfile, dotted: str) -> bool:
    value: Any = profile
    for part in dotted.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, BaseModel) and part in type(value).model_fields:
            value = getattr(value, part)
        else:
            return False
    return True


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ProfileError(f"target file {path} extends itself", "Remove the circle of extends.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"target file {path} is not valid TOML: {error}") from None
    except OSError as error:
        raise ProfileError(f"target file {path} cannot be read: {error.strerror}") from None
    base = table.pop("extends", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise ProfileError(f"target file {path}: extends must be a name or a path")
    if base.endswith(".toml"):
        base_path, known = path.parent / base, (path.parent / base).is_file()
    else:
        base_path, known = targets_dir() / f"{base}.toml", base in available()
    if not known:
        raise ProfileError(f"target file {path} extends unknown target '{base}'", nearest(base, available()))
    inherited = _read_with_bases(base_path, (*seen, path.resolve()))
    return _merge(_without_replaced_sources(inherited, table), table)


def _without_replaced_sources(inherited: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Drop inherited sources of values that `table` sets: a source belongs to its value."""
    sources = inherited.get("sources")
    if not isinstance(sources, dict):
        return inherited
    return {**inherited, "sources": {key: why for key, why in sources.items() if not _sets(table, key)}}


def _sets(table: dict[str, Any], dotted: str) -> bool:
    value: Any = table
    for part in dotted.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _merge(base: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in table.items():
        inner = merged.get(key)
        both_tables = isinstance(value, dict) and isinstance(inner, dict)
        merged[key] = _merge(inner, value) if both_tables and inner is not None else value
    return merged
