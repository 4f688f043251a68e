"""What this machine is: its CPU, its versions, and what its runtime loads.

Used to decide whether a target's latency may be measured here, and written into every report. Nothing in
it says whose machine it is: no host name, no user, no path.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.errors import MachineError, ModelError
from edgekit.profile import Hardware

_CPUINFO = Path("/proc/cpuinfo")

_ISA_OF_ARCH = {"arm64": "aarch64", "AMD64": "x86_64", "amd64": "x86_64", "armv8l": "armv7l"}
"""What macOS, Windows, the BSDs and 32-bit Linux on a 64-bit ARM call the instruction sets of profiles."""

BASE_PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "numpy", "tokenizers", "pillow", "psutil")
EXPORT_PACKAGES = (
    "torch",
    "transformers",
    "optimum",
    "onnxscript",
    "sentence-transformers",
    "safetensors",
    "requests",
)

_FLOOR_IR, _FLOOR_OPSET = 8, 13
"""Where the probe of the runtime starts: every release that edgekit accepts loads these.

Source: onnxruntime `docs/Versioning.md`: IR 8 and opset 13 since 1.10, and old versions stay supported.
"""


@dataclass(frozen=True)
class Machine:
    """The computer that something was measured on.

    Attributes:
        arch: Architecture as the operating system reports it, e.g. `x86_64`, `aarch64`, `arm64` (macOS).
        cpu: Model name of the CPU; empty where the system does not say.
        features: CPU features that every core has, as /proc/cpuinfo names them, sorted; None where the
            operating system does not list them.
        cores: Logical CPUs that this process may use.
        memory_bytes: Physical memory.
        os: Kernel name, e.g. `Linux`.
    """

    arch: str
    cpu: str
    features: tuple[str, ...] | None
    cores: int
    memory_bytes: int
    os: str

    @property
    def isa(self) -> str:
        """The instruction set, as profiles name it."""
        return _ISA_OF_ARCH.get(self.arch, self.arch)

    def to_json(self) -> dict[str, Any]:
        """Return the machine as JSON values."""
        out = asdict(self)
        out["features"] = None if self.features is None else list(self.features)
        return out


@dataclass(frozen=True)
class RuntimeCeilings:
    """The newest files that the installed ONNX Runtime loads.

    Attributes:
        ir_version: Highest version of the file format.
        opset: Highest version of the default operator set.
    """

    ir_version: int
    opset: int


def read_machine() -> Machine:
    """Return what this process runs on."""
    import psutil

    text = _CPUINFO.read_text(encoding="utf-8", errors="replace") if _CPUINFO.is_file() else ""
    cpu, features = parse_cpuinfo(text)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        arch=platform.machine(),
        cpu=cpu or platform.processor(),
        features=features,
        cores=usable or 1,
        memory_bytes=int(psutil.virtual_memory().total),
        os=platform.system(),
    )


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...] | None]:
    """Return the CPU's name and the features that all its cores share.

    Args:
        text: Content of /proc/cpuinfo, of x86 (`model name`, `flags`) or of ARM (`Features`, where the name
            is often only a part number; big and little cores list different features).
    """
    fields = [
        (key.strip(), value.strip())
        for key, colon, value in (line.partition(":") for line in text.splitlines())
        if colon
    ]
    first: dict[str, str] = {}
    for key, value in fields:
        first.setdefault(key, value)
    name = first.get("model name") or first.get("Model") or first.get("Hardware") or ""
    if not name and "CPU part" in first:
        name = f"ARM implementer {first.get('CPU implementer', '?')} part {first['CPU part']}"
    per_core = [set(value.split()) for key, value in fields if key in ("flags", "Features")]
    return name, tuple(sorted(set.intersection(*per_core))) if per_core else None


def missing_features(machine: Machine, hardware: Hardware) -> tuple[str, ...]:
    """Return the needed CPU features that this machine does not show, in the profile's order.

    Where one of several would do and none is there, the entry names them all: `avx512_vnni or avx_vnni`.
    """
    has = machine.features or ()
    missing = tuple(name for name in hardware.needs if name not in has)
    if hardware.needs_any and not set(hardware.needs_any).intersection(has):
        missing += (" or ".join(hardware.needs_any),)
    return missing


def why_not_measured(machine: Machine, hardware: Hardware) -> str | None:
    """Return why latency measured here would say nothing about the profile's devices, or None if it would.

    Args:
        machine: This machine.
        hardware: The profile's `[hardware]` table.
    """
    if machine.isa != hardware.isa:
        return f"the target is {hardware.isa} and this machine is {machine.isa}"
    if hardware.os is not None and machine.os.lower() != hardware.os:
        return f"the target runs {hardware.os} and this machine runs {machine.os}"
    asks = hardware.needs or hardware.needs_any or hardware.lacks
    if machine.features is None and asks:
        return f"{machine.os} does not list the CPU features that the target asks for"
    missing = missing_features(machine, hardware)
    if missing:
        return f"this CPU has no {', no '.join(missing)}"
    surplus = [name for name in hardware.lacks if name in (machine.features or ())]
    if surplus:
        return (
            f"this CPU has {', '.join(surplus)}, so the runtime takes kernels that the target does not have"
        )
    return None


def versions() -> dict[str, str]:
    """Return the versions of edgekit, Python and the packages that shape a result; absent ones are left out.

    Only metadata is read: nothing is imported.
    """
    found = {"edgekit": __version__, "python": platform.python_version()}
    for package in (*BASE_PACKAGES, *EXPORT_PACKAGES):
        installed = installed_version(package)
        if installed is not None:
            found[package] = installed
    return found


def installed_version(package: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def runtime_ceilings() -> RuntimeCeilings:
    """Return the newest IR version and opset that the installed ONNX Runtime really loads.

    Each is found by opening one-node models of rising version until one is refused.

    Raises:
        MachineError: ONNX Runtime or onnx cannot be imported, or loads not even an old model.
    """
    try:
        return RuntimeCeilings(
            ir_version=_highest(_FLOOR_IR, lambda value: _loads(value, _FLOOR_OPSET)),
            opset=_highest(_FLOOR_OPSET, lambda value: _loads(_FLOOR_IR, value)),
        )
    except ImportError as error:
        raise MachineError(
            f"ONNX Runtime cannot be used: {error}",
            "Install it again with: pip install --force-reinstall onnxruntime onnx",
        ) from None


def _highest(floor: int, works: Callable[[int], bool]) -> int:
    if not works(floor):
        raise MachineError(
            "ONNX Runtime is installed but does not load a one-node model",
            "Install it again with: pip install --force-reinstall onnxruntime",
        )
    value = floor
    while works(value + 1):
        value += 1
    return value


def _loads(ir_version: int, opset: int) -> bool:
    from onnx import TensorProto, helper

    from edgekit.runtime import open_session

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)])
    try:
        open_session(model.SerializeToString())
    except ModelError:
        return False
    return True
