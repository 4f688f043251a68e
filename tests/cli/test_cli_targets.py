"""`edgekit targets` shows every profile, and each value of one with its source."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from edgekit.cli.targets import command, readable_value, short_types
from edgekit.errors import ProfileError
from edgekit.profile import available, load_profile


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_table_has_a_row_per_target_and_fits_into_100_columns() -> None:
    lines = _run().splitlines()
    for name in available():
        (row,) = [line for line in lines if line.split()[:1] == [name]]
        profile = load_profile(name)
        assert short_types(profile) in row
        assert profile.hardware.isa in row
        assert f"{profile.onnx.opset} / {profile.onnx.ir_version}" in row
        assert profile.onnx.min_runtime in row
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)


def test_the_types_are_written_as_the_field_writes_them() -> None:
    assert short_types(load_profile("cpu-x86")) == "U8S8"
    assert short_types(load_profile("arm64")) == "S8S8"


def test_the_list_as_json_holds_every_profile_whole() -> None:
    listed = json.loads(_run("--json"))
    assert [entry["name"] for entry in listed] == list(available())
    assert all(entry == load_profile(entry["name"]).model_dump(mode="json") for entry in listed)


@pytest.mark.parametrize("name", available())
def test_showing_a_target_prints_every_value_and_the_words_of_every_source(name) -> None:
    output = _run("show", name)
    profile = load_profile(name)
    shown = "".join(output.split())
    assert "".join(profile.status.split()) in shown
    for section, values in profile.model_dump(mode="json", exclude={"sources"}).items():
        if isinstance(values, dict):
            assert f"[{section}]" in output
            assert all(f"  {key} " in output for key in values)
    for source in profile.sources.values():
        assert source.split()[0] in shown
        assert source.split()[-1].strip("'") in shown
    assert max(map(len, output.splitlines())) <= 100


@pytest.mark.parametrize("arguments", [("show", "arm64", "--json"), ("--json", "show", "arm64")])
def test_showing_a_target_as_json_gives_the_resolved_profile(arguments) -> None:
    assert json.loads(_run(*arguments)) == load_profile("arm64").model_dump(mode="json")


def test_a_users_file_is_shown_like_a_built_in(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('extends = "arm64"\ntitle = "My [red] board"\n')
    assert "mine  My [red] board" in _run("show", "./mine.toml")


def test_an_unknown_target_is_a_profile_error() -> None:
    with pytest.raises(ProfileError, match="unknown target 'arm46'"):
        _run("show", "arm46")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (False, "no"),
        (None, "-"),
        ([], "-"),
        ({}, "-"),
        (0, "0"),
        ([[1, 16], [8, 64]], "1x16, 8x64"),
        (["a", "b"], "a, b"),
        ({"k": "v"}, "k = v"),
        ("1.18", "1.18"),
    ],
)
def test_values_are_written_as_a_person_writes_them(value, text) -> None:
    assert readable_value(value) == text
