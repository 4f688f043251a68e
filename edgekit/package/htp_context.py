"""The graph compiled ahead of time for Qualcomm's Hexagon processor, so that a phone need not compile it."""

from __future__ import annotations

from pathlib import Path

from edgekit.record import Clock, Skip, StepRecord
from edgekit.runners.qnn import HTPS, compile_for
from edgekit.store import writing


def write_htp_context(model: Path, folder: Path, arch: str) -> StepRecord:
    """Write `model.htp-v<arch>.onnx`, or say why it was not compiled.

    Args:
        model: The graph, whole in Q/DQ and of static shapes.
        folder: Where to write.
        arch: Generation of the processor, a number such as `75`.

    Raises:
        RunnerFailedError: It does not compile, or a node would be left to the CPU.
    """
    clock = Clock()
    htp = next(htp for htp in HTPS if htp.arch == arch)
    compiled = folder / f"model.htp-v{arch}.onnx"
    state = htp.state()
    if not state.ready:
        skip = Skip(compiled.name, f"{state.missing}; {state.hint}" if state.hint else str(state.missing))
        return clock.record("package", f"htp-v{arch}", f"not compiled for {htp.title}", skipped=(skip,))
    compile_for(htp, model, compiled)
    _put_in_order(compiled)
    return clock.record(
        "package",
        f"htp-v{arch}",
        f"compiled for {htp.title}; nothing is left to the CPU",
        bytes_before=model.stat().st_size,
        bytes_after=compiled.stat().st_size,
    )


def _put_in_order(compiled: Path) -> None:
    """Write the file's operator sets in the order of their names; the runtime's order is new in each run."""
    import onnx

    proto = onnx.load(compiled)
    proto.opset_import.sort(key=lambda entry: entry.domain)
    with writing(compiled) as aside:
        aside.write_bytes(proto.SerializeToString(deterministic=True))
