"""Target profiles: the built-in ones, and files that a user writes."""

from __future__ import annotations

import tomllib
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import ProfileError
from edgekit.profile import available, load_profile, lowered_to, profile_from_table, targets_dir

BUILT_IN = (
    "android-qnn",
    "arm64",
    "arm64-neon",
    "cpu-x86",
    "cpu-x86-avx2",
    "cpu-x86-portable",
    "mobile-android",
    "mobile-ios",
    "web-wasm",
)
MINIMAL: dict[str, Any] = {
    "title": "A device",
    "status": "Not tried.",
    "hardware": {"isa": "x86_64"},
    "onnx": {"opset": 20, "ir_version": 10, "min_runtime": "1.18"},
    "quantization": {"activation_type": "uint8", "weight_type": "int8"},
}


def _write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def _own_values(table: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in table.items():
        if isinstance(value, dict) and prefix + key not in ("runtime.session_options", "onnx.static_shape"):
            keys += _own_values(value, f"{prefix}{key}.")
        else:
            keys.append(prefix + key)
    return keys


def _value(table: dict[str, Any], dotted: str) -> Any:
    return reduce(lambda inner, part: inner[part], dotted.split("."), table)


def test_the_built_in_targets_are_the_promised_ones() -> None:
    assert set(BUILT_IN) <= set(available())


@pytest.mark.parametrize("name", available())
class TestBuiltIn:
    def test_is_named_after_its_file(self, name: str) -> None:
        assert load_profile(name).name == name

    def test_gives_every_type_and_version_a_source(self, name: str) -> None:
        needed = {"onnx.opset", "onnx.ir_version", "onnx.min_runtime", "quantization.activation_type"}
        assert needed <= set(load_profile(name).sources)
        assert all(len(source) > 20 for source in load_profile(name).sources.values())

    def test_gives_every_value_that_is_not_plain_a_source_of_its_own(self, name: str) -> None:
        table = tomllib.loads((targets_dir() / f"{name}.toml").read_text(encoding="utf-8"))
        own = {key for key in _own_values({k: v for k, v in table.items() if k != "sources"}) if "." in key}
        plain = {"hardware.isa", "hardware.os", "quantization.weight_type", "quantization.per_channel"}
        empty = {key for key in own if key.startswith("hardware.") and not _value(table, key)}
        assert own - plain - empty <= set(table["sources"])

    def test_writes_files_that_its_oldest_runtime_reads(self, name: str) -> None:
        onnx = load_profile(name).onnx
        # onnxruntime docs reference/compatibility.md: 1.18 is the first release that reads IR 10, opset 21.
        assert onnx.min_runtime == ("1.24" if name == "android-qnn" else "1.18")  # what its provider asks for
        assert onnx.ir_version <= 10
        assert 20 <= onnx.opset <= 21

    def test_quantizes_weights_per_channel(self, name: str) -> None:
        assert load_profile(name).quantization.per_channel

    def test_takes_uint8_activations_unless_the_cpu_is_arm(self, name: str) -> None:
        profile = load_profile(name)
        expected = "int8" if profile.hardware.isa == "aarch64" else "uint8"
        if profile.quantization.scope == "whole-graph":
            expected = "uint16"  # it does not run on the CPU
        assert profile.quantization.activation_type == expected
        assert profile.quantization.weight_type == "int8"

    def test_reduces_the_range_exactly_where_the_cpu_saturates(self, name: str) -> None:
        profile = load_profile(name)
        assert profile.quantization.reduce_range == profile.hardware.saturates


def test_only_android_gets_the_ort_format_and_it_is_made_for_arm() -> None:
    packaging = {name: load_profile(name).packaging for name in BUILT_IN}
    assert [name for name in BUILT_IN if packaging[name].ort_format] == ["mobile-android"]
    assert packaging["mobile-android"].ort_platform == "arm"


@pytest.mark.parametrize("name", BUILT_IN)
def test_activations_keep_their_zero_point_because_symmetric_ones_cost_accuracy(name) -> None:
    assert not load_profile(name).quantization.activation_symmetric


def test_the_portable_profile_asks_for_no_cpu_feature() -> None:
    hardware = load_profile("cpu-x86-portable").hardware
    assert (*hardware.needs, *hardware.needs_any, *hardware.lacks) == ()


def test_a_users_file_works_like_a_built_in(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "mine.toml", 'extends = "arm64"\ntitle = "My board"\n[runtime]\nthreads = 3\n')
    profile = load_profile("./mine.toml")
    assert (profile.name, profile.title, profile.runtime.threads) == ("mine", "My board", 3)
    assert profile.quantization == load_profile("arm64").quantization


def test_extends_may_name_a_file_beside_the_file(tmp_path) -> None:
    _write(tmp_path / "base.toml", 'extends = "cpu-x86"\n[runtime]\nthreads = 2\n')
    profile = load_profile(
        _write(tmp_path / "mine.toml", 'extends = "base.toml"\n[policy]\nwants = "size"\n')
    )
    assert (profile.runtime.threads, profile.policy.wants) == (2, "size")


def test_an_inherited_source_goes_when_its_value_is_replaced(tmp_path) -> None:
    path = _write(tmp_path / "mine.toml", 'extends = "cpu-x86"\n[quantization]\nreduce_range = true\n')
    sources = load_profile(path).sources
    assert "quantization.reduce_range" not in sources
    assert "quantization.activation_type" in sources


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('extends = "arm64"\nquantisation = 1', "unknown key 'quantisation'", "quantization"),
        ('extends = "arm64"\n[quantization]\nper_chanel = true', "'quantization.per_chanel'", "per_channel"),
        ('extends = "arm64"\n[quantization]\nweight_type = "int4"', "quantization.weight_type", ""),
        ('extends = "arm64"\n[quantization]\nmatmul_ops = ["Mul"]', "quantization.matmul_ops.0", ""),
        ('extends = "arm64"\n[runtime]\nthreads = 0', "runtime.threads", ""),
        ('extends = "arm64"\n[policy.gates]\ncosine_mean = nan', "policy.gates.cosine_mean", ""),
        ('extends = "arm64"\nname = "x"', "unknown key 'name'", "stem"),
        ('extends = "arm65"', "unknown target 'arm65'", "arm64"),
        ('extends = "gone.toml"', "'gone.toml'", ""),
        ("extends = 3", "extends must be a name", ""),
        ('extends = "mine.toml"', "extends itself", "circle"),
        ("title = ", "not valid TOML", ""),
        ('title = "x"', "'status' is missing", "extends"),
        ('extends = "arm64"\n[sources]\n"quantization.nope" = "x"', "quantization.nope", "dotted"),
    ],
)
def test_a_wrong_file_is_refused_naming_the_key(tmp_path, text, message, hint) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(_write(tmp_path / "mine.toml", text))
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_a_circle_of_two_files_is_refused(tmp_path) -> None:
    _write(tmp_path / "one.toml", 'extends = "two.toml"')
    _write(tmp_path / "two.toml", 'extends = "one.toml"')
    with pytest.raises(ProfileError, match="extends itself"):
        load_profile(str(tmp_path / "one.toml"))


def test_bytes_that_are_no_text_are_refused(tmp_path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="not valid TOML"):
        load_profile(str(tmp_path / "mine.toml"))


def test_an_unknown_target_names_the_nearest_one() -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile("cpu-x68")
    assert caught.value.message == "unknown target 'cpu-x68'"
    assert "Did you mean 'cpu-x86'?" in caught.value.hint


@pytest.mark.parametrize("target", ["./gone.toml", ".toml"])
def test_a_missing_file_is_named(target) -> None:
    with pytest.raises(ProfileError, match="not found"):
        load_profile(target)


@pytest.mark.parametrize("target", ["", "../targets/arm64", "/etc/passwd", "arm64/", "a\0b"])
def test_a_target_name_never_leads_out_of_the_folder_of_targets(target) -> None:
    with pytest.raises(ProfileError, match="unknown target"):
        load_profile(target)


def test_a_profile_from_a_table_has_the_defaults_of_the_schema() -> None:
    profile = profile_from_table("mine", MINIMAL)
    assert profile.name == "mine"
    assert profile.runtime.threads == 1
    assert profile.policy.min_size_ratio is None


def test_profiles_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_profile("arm64").title = "x"


@pytest.mark.parametrize(
    ("release", "opset", "ir_version"),
    [("1.14", 18, 8), ("1.16.3", 19, 9), ("1.18", 20, 10), ("1.30", 20, 10)],
)
def test_an_older_floor_lowers_opset_and_ir_version_and_a_newer_one_leaves_them(
    release: str, opset: int, ir_version: int
) -> None:
    lowered = lowered_to(load_profile("cpu-x86"), release)
    assert (lowered.onnx.opset, lowered.onnx.ir_version, lowered.onnx.min_runtime) == (
        opset,
        ir_version,
        release,
    )


@pytest.mark.parametrize(
    ("release", "message"),
    [("1.13", "reads no operator set that can be exported"), ("new", "is not a release")],
)
def test_a_floor_that_cannot_be_met_is_refused(release: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        lowered_to(load_profile("cpu-x86"), release)


def test_a_file_whose_floor_does_not_read_its_opset_is_refused(tmp_path: Path) -> None:
    text = 'extends = "cpu-x86"\ntitle = "old"\nstatus = "x"\n[onnx]\nmin_runtime = "1.16"\n'
    with pytest.raises(
        ProfileError, match=r"ONNX Runtime 1\.16 .* reads files up to opset 19 and IR 9"
    ) as caught:
        load_profile(_write(tmp_path / "old.toml", text))
    assert "--min-runtime" in caught.value.hint


WHOLE = {"scope": "whole-graph", "activation_type": "uint16", "embeddings": "as-activations"}


@pytest.mark.parametrize(
    ("onnx", "rules", "message"),
    [
        ({"static_shape": {}}, {"scope": "kernels"}, "needs quantization.scope = 'whole-graph'"),
        ({"static_shape": {}, "opset": 20}, {}, "16-bit codes need onnx.opset 21 or newer, and it is 20"),
        ({}, {}, "'whole-graph' needs onnx.static_shape"),
        ({"static_shape": {}}, {"embeddings": "float"}, "embeddings = 'float' does not fit"),
        ({"static_shape": {"batch": 2}}, {}, "onnx.static_shape.batch"),
        ({"static_shape": {"sequence": 0}}, {}, "onnx.static_shape.sequence"),
        ({"static_shape": {"length": 8}}, {}, "unknown key 'onnx.static_shape.length'"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(onnx: dict, rules: dict, message: str) -> None:
    table = MINIMAL | {
        "onnx": MINIMAL["onnx"] | {"opset": 21} | onnx,
        "quantization": MINIMAL["quantization"] | WHOLE | rules,
    }
    with pytest.raises(ProfileError, match=message):
        profile_from_table("npu", table)


def test_an_older_runtime_keeps_the_static_shape_and_cannot_have_16_bits() -> None:
    profile = load_profile("android-qnn")
    assert lowered_to(profile, "1.20").onnx.static_shape == profile.onnx.static_shape
    with pytest.raises(ProfileError, match=r"for ONNX Runtime 1\.16: 16-bit codes need onnx.opset 21"):
        lowered_to(profile, "1.16")


@pytest.mark.parametrize(("release", "ir_version"), [("1.19", 10), ("1.18", 10), ("1.20", 9)])
def test_the_operator_for_tables_in_four_bits_needs_a_runtime_that_has_it(release, ir_version) -> None:
    table = MINIMAL | {
        "onnx": {"opset": 20, "ir_version": ir_version, "min_runtime": release},
        "quantization": MINIMAL["quantization"] | {"int4_tables": "gather-block-quantized"},
    }
    with pytest.raises(ProfileError, match=r"needs onnx.min_runtime 1.20 and onnx.ir_version 10 or newer"):
        profile_from_table("board", table)


def test_a_target_with_that_operator_cannot_be_lowered_below_it() -> None:
    table = MINIMAL | {
        "onnx": {"opset": 20, "ir_version": 10, "min_runtime": "1.22"},
        "quantization": MINIMAL["quantization"] | {"int4_tables": "gather-block-quantized"},
    }
    profile = profile_from_table("board", table)
    assert lowered_to(profile, "1.20").quantization.int4_tables == "gather-block-quantized"
    with pytest.raises(ProfileError, match=r"for ONNX Runtime 1\.18: quantization.int4_tables"):
        lowered_to(profile, "1.18")
