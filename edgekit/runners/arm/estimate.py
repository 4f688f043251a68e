"""Turn counts into an estimated time on one core of a named board: never a measurement, and labelled so.

The model: a core finishes no sooner than its issue width, its vector pipes, its multipliers and its load
pipes allow, and no sooner than the weights that one inference reads come out of memory. The largest of these
times is the estimate: everything overlaps, nothing stalls, all else lies in the cache. So the times of both
models are too short; it is good for their ratio, since float is often bound by memory where int8 is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Board:
    """One core of a board.

    Attributes:
        title: Board and core.
        ghz: Clock.
        width: Instructions that can begin per cycle.
        vector: Vector and floating-point instructions per cycle.
        multiply: Of these, FMLA, SDOT and SMMLA per cycle.
        widening: Of these, SMLAL, SMULL and MLA per cycle.
        loads: Loads per cycle.
        gigabytes_per_s: Peak of the memory's interface.
    """

    title: str
    ghz: float
    width: int
    vector: int
    multiply: int
    widening: int
    loads: int
    gigabytes_per_s: float


PI_3 = Board("Raspberry Pi 3B+, one Cortex-A53", 1.4, 2, 2, 1, 1, 1, 3.6)
"""Source: LLVM, AArch64SchedA53.td: IssueWidth 2; one unit for FP arithmetic, one for multiply-adds, one for
loads. Official Raspberry Pi Beginner's Guide (2018), appendix F: 1.4 GHz, LPDDR2 at 900 MHz; as 900 million
transfers of 32 bits: 3.6 GB/s."""

PI_4 = Board("Raspberry Pi 4B, one Cortex-A72", 1.5, 3, 2, 2, 1, 1, 12.8)
"""Source: LLVM, AArch64SchedA57.td, which it uses for the Cortex-A72: IssueWidth 3; pipes W and X, integer
multiplies on W only; one load pipe. Official Raspberry Pi Beginner's Guide, 3rd edition, appendix F: 1.5 GHz,
LPDDR4-3200; 32 bits wide: 12.8 GB/s."""

PI_5 = Board("Raspberry Pi 5, one Cortex-A76", 2.4, 4, 2, 2, 1, 2, 17.1)
"""Source: Arm, Cortex-A76 and Neoverse N1 Software Optimization Guides: 4 instructions decoded per cycle;
LLVM, AArch64SchedNeoverseN1.td, of the same design: V0 and V1, integer multiplies on V0 only, two load pipes.
Raspberry Pi 5 product brief: 2.4 GHz, LPDDR4X-4267; 32 bits wide: 17.1 GB/s."""

_VECTOR = ("sdot", "smmla", "smlal", "mla", "fmla", "bfmmla", "simd")
_MULTIPLY = ("sdot", "smmla", "fmla", "bfmmla")
_WIDENING = ("smlal", "mla")


@dataclass(frozen=True)
class Estimate:
    """An estimated time.

    Attributes:
        ms: Milliseconds.
        bound_by: What takes that long: `issue`, `vector`, `multiply`, `loads` or `memory`.
    """

    ms: float
    bound_by: str


def estimate(board: Board, counts: Mapping[str, int], weight_bytes: int) -> Estimate:
    """Return the estimated time of one inference on one core.

    Args:
        board: The core and its memory.
        counts: Instructions by class, as `decode.by_class` returns them.
        weight_bytes: Weights that one inference reads.
    """

    def number(kinds: tuple[str, ...]) -> int:
        return sum(counts.get(kind, 0) for kind in kinds)

    cycles = {
        "issue": counts["total"] / board.width,
        "vector": number(_VECTOR) / board.vector,
        "multiply": number(_MULTIPLY) / board.multiply + number(_WIDENING) / board.widening,
        "loads": number(("load",)) / board.loads,
    }
    times = {name: value / board.ghz / 1e6 for name, value in cycles.items()}
    times["memory"] = weight_bytes / board.gigabytes_per_s / 1e6
    slowest = max(times, key=lambda name: times[name])
    return Estimate(times[slowest], slowest)


def weight_bytes(model: Path) -> int:
    """Return the bytes of weights that one inference reads: all initializers but the tables of lookups.

    A table that is only looked up in (first input of a Gather) is read row by row, which is next to nothing.
    """
    from edgekit import graph

    return sum(
        value.const_value.nbytes
        for value in graph.load(model).graph.initializers.values()
        if value.const_value is not None
        and any((use.node.op_type, use.idx) != ("Gather", 0) for use in value.uses())
    )
