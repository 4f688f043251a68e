"""`edgekit doctor`: honest about what is here, what is timed here, and what is missing."""

import json
import sys

import pytest
from click.testing import CliRunner

from edgekit import machine as machine_file
from edgekit.__main__ import main
from edgekit.cli.doctor import FEATURES, command
from edgekit.machine import installed_version, read_machine, runtime_ceilings, why_not_measured
from edgekit.profile import available, load_profile
from edgekit.runners.table import RUNNERS


def found(**options) -> dict:
    result = CliRunner().invoke(command, ["--json"], **options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_it_says_the_versions_and_ceilings_of_what_is_installed():
    findings = found()
    assert findings["versions"]["onnxruntime"] == installed_version("onnxruntime")
    ceilings = runtime_ceilings()
    assert (findings["runtime"]["ir_version"], findings["runtime"]["opset"]) == (
        ceilings.ir_version,
        ceilings.opset,
    )


def test_it_says_of_every_target_whether_it_is_timed_here_and_why_not():
    rows = {row["name"]: row for row in found()["targets"]}
    assert set(rows) == set(available())
    for name, row in rows.items():
        reason = why_not_measured(read_machine(), load_profile(name).hardware)
        assert row["latency_measured_here"] == (reason is None)
        assert row["reason"] == (reason or "")
    assert "wasm32" in rows["web-wasm"]["reason"]


def test_it_says_which_of_the_features_that_matter_this_cpu_has():
    machine = read_machine()
    rows = {row["name"]: row["there"] for row in found()["features"]}
    assert set(rows) == set(FEATURES.get(machine.isa, {}))
    assert rows == {name: name in (machine.features or ()) for name in rows}


def test_it_says_which_places_to_run_a_package_are_ready_and_how_to_get_the_others():
    rows = {row["name"]: row for row in found()["runners"]}
    assert set(rows) == {runner.name for runner in RUNNERS}
    assert rows["native"]["ready"]
    assert "the kit 'arm' is not installed" in rows["arm64-cortex-a76"]["missing"]
    assert rows["arm64-cortex-a76"]["get"] == "edgekit runners install arm"


def test_packages_that_export_needs_are_listed_with_the_command_and_exit_0(monkeypatch):
    def without_torch(package):
        return None if package == "torch" else installed_version(package)

    monkeypatch.setattr(machine_file, "installed_version", without_torch)
    findings = found()
    assert findings["missing"]["export"] == ["torch"]
    assert "pip install 'edgekit[export]'" in findings["advice"][0]
    result = CliRunner().invoke(command)
    assert result.exit_code == 0
    assert "needs torch; install with: pip install 'edgekit[export]'" in result.stdout


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"]])
def test_a_broken_runtime_is_shown_and_ends_with_3(arguments, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(arguments) == 3
    out, err = capsys.readouterr()
    assert "ONNX Runtime cannot be used" in err
    assert "pip install --force-reinstall onnxruntime" in err
    assert "ONNX Runtime cannot be used" in out
    assert "cpu-x86" in out


def test_the_tables_fit_100_columns_and_say_where_packages_run():
    text = CliRunner().invoke(command).stdout
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "places to run a package are ready: native" in text
    for word in ("cpu-x86-portable", "operator set", "onnxruntime", "native"):
        assert word in text
