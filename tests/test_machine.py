"""What this machine is, and whether a target's latency may be measured on it."""

import json
import platform
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import machine as machine_file
from edgekit.errors import MachineError
from edgekit.machine import (
    Machine,
    missing_features,
    parse_cpuinfo,
    read_machine,
    runtime_ceilings,
    versions,
    why_not_measured,
)
from edgekit.profile import Hardware

BIG_LITTLE = """processor\t: 0
Features\t: fp asimd asimddp i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd05

processor\t: 1
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""

VNNI = Machine("x86_64", "a CPU", ("avx2", "avx512_vnni"), 2, 8_000_000_000, "Linux")
FEATURES = st.lists(st.sampled_from(["avx2", "avx512_vnni", "amx_int8", "asimddp"]), unique=True).map(tuple)


def test_the_machine_names_its_cpu_but_not_its_owner():
    machine = read_machine()
    text = json.dumps(machine.to_json())
    assert machine.arch == platform.machine()
    assert machine.cores >= 1
    assert machine.memory_bytes > 100_000_000
    assert set(machine.to_json()) == {"arch", "cpu", "features", "cores", "memory_bytes", "os"}
    assert str(Path.home()) not in text


def test_on_linux_the_features_are_those_of_the_kernel():
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux lists them")
    features = read_machine().features
    assert features is not None
    assert {"x86_64": "sse2", "aarch64": "asimd"}[platform.machine()] in features


def test_a_feature_counts_only_if_every_core_has_it():
    name, features = parse_cpuinfo(BIG_LITTLE)
    assert features == ("asimd", "asimddp", "fp")
    assert name == "ARM implementer 0x41 part 0xd05"


def test_an_x86_cpu_is_named_by_its_model():
    assert parse_cpuinfo("model name\t: Fast CPU: v2\nflags\t\t: b a\n") == ("Fast CPU: v2", ("a", "b"))


def test_where_the_system_lists_no_features_they_are_unknown_not_absent():
    assert parse_cpuinfo("") == ("", None)
    mac = Machine("arm64", "Apple", None, 8, 16_000_000_000, "Darwin")
    assert "does not list" in str(why_not_measured(mac, Hardware(isa="aarch64", needs=("asimddp",))))
    assert why_not_measured(mac, Hardware(isa="aarch64")) is None


@pytest.mark.parametrize(
    ("hardware", "reason"),
    [
        (Hardware(isa="x86_64", needs=("avx2",)), None),
        (Hardware(isa="aarch64"), "the target is aarch64 and this machine is x86_64"),
        (
            Hardware(isa="x86_64", os="android"),
            "the target runs android and this machine runs Linux",
        ),
        (Hardware(isa="x86_64", needs=("avx2", "amx_int8")), "this CPU has no amx_int8"),
        (Hardware(isa="x86_64", needs_any=("avx_vnni", "avx512_vnni")), None),
        (
            Hardware(isa="x86_64", needs_any=("avx_vnni", "amx_int8")),
            "this CPU has no avx_vnni or amx_int8",
        ),
        (
            Hardware(isa="x86_64", needs=("avx2",), lacks=("avx512_vnni", "avx_vnni")),
            "this CPU has avx512_vnni, so the runtime takes kernels that the target does not have",
        ),
    ],
)
def test_the_reason_why_latency_is_not_measured_here_is_named(hardware, reason):
    assert why_not_measured(VNNI, hardware) == reason


@given(has=FEATURES, needs=FEATURES)
def test_a_machine_measures_a_profile_exactly_when_nothing_is_missing(has, needs):
    machine = Machine("x86_64", "", has, 1, 1, "Linux")
    hardware = Hardware(isa="x86_64", needs=needs)
    missing = missing_features(machine, hardware)
    assert set(missing) == set(needs) - set(has)
    assert (why_not_measured(machine, hardware) is None) == (not missing)


def test_versions_are_read_without_importing_the_packages():
    import subprocess

    code = (
        "import sys; from edgekit.machine import versions; print(versions()['onnxruntime']); "
        "print([m for m in ('torch', 'transformers', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == [versions()["onnxruntime"], "[]"]


def test_versions_leave_out_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(machine_file, "EXPORT_PACKAGES", ("no-such-distribution-edgekit",))
    assert "no-such-distribution-edgekit" not in versions()
    assert versions()["python"] == platform.python_version()


def test_the_ceilings_are_the_last_versions_that_load():
    ceilings = runtime_ceilings()
    assert machine_file._loads(ceilings.ir_version, 13)
    assert not machine_file._loads(ceilings.ir_version + 1, 13)
    assert machine_file._loads(8, ceilings.opset)
    assert not machine_file._loads(8, ceilings.opset + 1)


def test_a_runtime_that_cannot_be_imported_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MachineError, match="ONNX Runtime cannot be used"):
        runtime_ceilings()


def test_a_runtime_that_loads_nothing_is_not_probed_for_ever(monkeypatch):
    monkeypatch.setattr(machine_file, "_loads", lambda ir_version, opset: False)
    with pytest.raises(MachineError, match="does not load"):
        runtime_ceilings()
