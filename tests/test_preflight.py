"""A wrong request is refused before the work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import DataError, OutputExistsError, RecipeError, StorageError
from edgekit.preflight import calibrates, known_gates, read_data, refuse_output, resolve, ship_of
from edgekit.profile import load_profile
from edgekit.recipe import Recipe, recipe_from_table
from edgekit.tasks import TASKS


def recipe(**more: object) -> Recipe:
    return recipe_from_table({"model": "model", "targets": ["cpu-x86", "arm64"], **more})


def test_profiles_come_in_the_order_of_the_request():
    assert [profile.name for profile in resolve(recipe())] == ["cpu-x86", "arm64"]


@pytest.mark.parametrize(("task", "gate"), [(name, gate) for name in TASKS for gate in known_gates(name)])
def test_every_gate_of_a_task_may_be_asked_for(task, gate):
    assert resolve(recipe(task=task, gates={gate: 0.5}))


@pytest.mark.parametrize("gate", ["cosine", "sqnr", "", "top1_agreement.x.", "nothing.output"])
def test_a_gate_that_no_task_has_is_refused_without_a_model(gate):
    if gate.partition(".")[0] in known_gates("text-classification"):
        assert resolve(recipe(gates={gate: 0.5}))  # whether there is such an output shows later
    else:
        with pytest.raises(RecipeError, match=f"unknown gate '{gate}'"):
            resolve(recipe(gates={gate: 0.5}))


def test_a_gate_of_another_task_is_refused():
    with pytest.raises(RecipeError, match="unknown gate 'kl_mean'"):
        resolve(recipe(task="sentence-embedding", gates={"kl_mean": 0.5}))


def test_an_output_is_only_replaced_with_force_and_only_if_it_is_one(tmp_path: Path):
    output = tmp_path / "out"
    refuse_output(output, recipe(), force=False)
    output.mkdir()
    refuse_output(output, recipe(), force=False)
    (output / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(OutputExistsError):
            refuse_output(output, recipe(), force=force)
    (output / "report.json").write_text("{}")
    refuse_output(output, recipe(), force=True)
    with pytest.raises(OutputExistsError, match="is not empty"):
        refuse_output(output, recipe(), force=False)


def test_an_output_that_holds_an_input_is_refused_also_through_a_link(tmp_path: Path):
    (tmp_path / "out/data").mkdir(parents=True)
    (tmp_path / "out/report.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "out/data")
    for data in (tmp_path / "out/data", tmp_path / "link"):
        with pytest.raises(OutputExistsError, match="holds the input"):
            refuse_output(tmp_path / "out", recipe(calibration={"data": str(data)}), force=True)


def test_an_input_whose_name_no_file_can_have_is_not_looked_for(tmp_path: Path):
    refuse_output(tmp_path / "out", recipe(calibration={"data": "a" * 5000}), force=False)


def test_a_place_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is not a folder"):
        refuse_output(tmp_path / "file/deep/out", recipe(), force=False)


def test_no_data_is_refused_for_what_it_would_be_needed():
    with pytest.raises(DataError, match="static quantization needs real data"):
        read_data(recipe(), calibrates=True)
    with pytest.raises(DataError, match="validation needs real data"):
        read_data(recipe(), calibrates=False)


def test_a_float_package_needs_data_to_validate_on_only(tmp_path: Path):
    (tmp_path / "texts.txt").write_text("".join(f"text {n}\n" for n in range(40)))
    data = {"data": str(tmp_path / "texts.txt")}
    found = read_data(recipe(validation=data), calibrates=False)
    assert (len(found.calibration), len(found.held_out)) == (0, 40)
    assert found.sha256("calibration") is None
    assert found.sha256("validation")


def test_what_is_not_quantized_cannot_ship_as_int8():
    with pytest.raises(RecipeError, match="'dynamic' cannot be shipped"):
        resolve(recipe(ship="dynamic", quantize={"method": "none"}))


@pytest.mark.parametrize(
    ("request_", "ship", "needed"),
    [
        ({}, "static", True),
        ({"ship": "best"}, "best", True),
        ({"ship": "dynamic"}, "dynamic", False),
        ({"ship": "float"}, "float", False),
        ({"ship": "float", "latency": {"candidates": True}}, "float", True),
        ({"quantize": {"method": "none"}, "latency": {"candidates": True}}, "float", False),
    ],
)
def test_only_static_int8_needs_calibration(request_, ship, needed):
    profile = load_profile("arm64")
    assert ship_of(recipe(**request_), profile) == ship
    assert calibrates(recipe(**request_), profile) is needed


@pytest.mark.parametrize(
    ("target", "more", "why"),
    [
        ("android-qnn", {"quantize": {"embeddings": "int4"}}, "stores embedding tables as activations"),
        ("android-qnn", {"quantize": {"embeddings": "int8"}}, "stores embedding tables as activations"),
        ("cpu-x86", {"quantize": {"embeddings": "int4"}, "ship": "dynamic"}, "it ships the dynamic form"),
        ("cpu-x86", {"quantize": {"embeddings": "int4", "method": "none"}}, "it ships the float form"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tables_that_a_target_does_not_have_are_refused_by_its_name(target, more, why):
    with pytest.raises(RecipeError, match=f"nothing for the target {target}: .*{why}"):
        resolve(recipe(targets=[target], **more))


def test_a_target_whose_runtime_reads_no_four_bits_is_refused_them_alone(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('extends = "arm64"\n[quantization]\nint4_tables = "none"\n')
    target = str(tmp_path / "mine.toml")
    assert resolve(recipe(targets=[target], quantize={"embeddings": "int8"}))
    with pytest.raises(RecipeError, match="mine: its runtime does not read such tables"):
        resolve(recipe(targets=[target], quantize={"embeddings": "int4"}))


@pytest.mark.parametrize("target", ["cpu-x86", "cpu-x86-avx2", "cpu-x86-portable", "arm64", "web-wasm"])
def test_other_targets_take_tables_in_four_bits(target):
    assert resolve(recipe(targets=[target], quantize={"embeddings": "int4"}))
