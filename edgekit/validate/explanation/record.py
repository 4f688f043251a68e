"""What an explanation says: `ExplainedNode` → `ExplainedPoint` → `Explanation`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Role = Literal[
    "int8 product", "float product", "int8 op", "quantize", "dequantize", "smoothing", "float op", "index op"
]
"""What a node is for: products do the multiply-adds, an index op computes shapes, masks and positions."""

_SLOWEST_KEPT = 20


@dataclass(frozen=True)
class ExplainedNode:
    """One node of the graph as ONNX Runtime runs it.

    Attributes:
        name: Name in the optimized graph; the runtime's fusions change some.
        op: Op type of the kernel.
        role: What it is for.
        types: Types of a product's factors, e.g. "uint8 · int8", or of another node's output.
        shape: Their shapes, e.g. "128x384 · 384x1152".
        weight_macs: Multiply-adds with a constant weight.
        activation_macs: Multiply-adds between activations.
        int8_macs: Those of both that an int8 kernel does.
        why: Of a float node why it is float, of a QuantizeLinear or DequantizeLinear what it is there for.
        needed: Of these two whether an int8 kernel needs it; None for other nodes.
        ms: Median kernel time; None where times would not be the target's.
    """

    name: str
    op: str
    role: Role
    types: str
    shape: str
    weight_macs: int = 0
    activation_macs: int = 0
    int8_macs: int = 0
    why: str = ""
    needed: bool | None = None
    ms: float | None = None

    @property
    def macs(self) -> int:
        """All multiply-adds."""
        return self.weight_macs + self.activation_macs


@dataclass(frozen=True)
class Prediction:
    """What excluding an int8 product would do to the time of a run. Predicted, not measured in the graph.

    Attributes:
        node: Name of the node.
        shape: Its shapes.
        int8_ms: Measured time of the node with its share of the QuantizeLinear and the smoothing before it.
        float_ms: Predicted time in float: the node's time, times the ratio of a lone float op to a lone int8
            op of that shape, with what has to be converted around it.
    """

    node: str
    shape: str
    int8_ms: float
    float_ms: float

    @property
    def gain_ms(self) -> float:
        """Milliseconds that excluding it would save; below 0 it would cost."""
        return self.int8_ms - self.float_ms


@dataclass(frozen=True)
class Roofline:
    """What products of two square matrices reach on this machine.

    Attributes:
        sizes: Rows and columns that were tried.
        threads: Intra-op threads.
        int8_gmacs_per_s: Billions of multiply-adds per second of the int8 product, best of all runs.
        float_gmacs_per_s: The same in float32.
    """

    sizes: tuple[int, ...]
    threads: int
    int8_gmacs_per_s: float
    float_gmacs_per_s: float


@dataclass(frozen=True)
class Group:
    """Nodes of one op type that share a role and a reason.

    Attributes:
        op: Op type.
        role: What they are for.
        why: Their common reason; empty where groups are made by op type alone.
        needed: As of their nodes.
        nodes: Names.
        macs: Their multiply-adds.
        ms: Sum of their times.
    """

    op: str
    role: Role
    why: str
    needed: bool | None
    nodes: tuple[str, ...]
    macs: int
    ms: float | None

    def to_json(self, *, names: bool) -> dict[str, Any]:
        """Return the group as JSON values, with the nodes' names or only their count."""
        out = {**asdict(self), "count": len(self.nodes)}
        if not names:
            del out["nodes"]
        return out


@dataclass(frozen=True)
class ExplainedPoint:
    """One input shape.

    Attributes:
        shape: e.g. "1x128".
        nodes: In the order they run.
        runs: Profiled runs that the times are medians of; 0 where nothing is timed.
        run_ms: Median time of a whole run without the profiler.
        profiled_ms: Median time of a whole run with it.
        predictions: One per int8 product; fewer where time ran out.
    """

    shape: str
    nodes: tuple[ExplainedNode, ...]
    runs: int = 0
    run_ms: float | None = None
    profiled_ms: float | None = None
    predictions: tuple[Prediction, ...] = ()

    @property
    def kernels_ms(self) -> float | None:
        """Sum of all nodes' times: what a run costs less what lies between the nodes."""
        return _total_ms(self.nodes)

    @property
    def macs(self) -> int:
        """Multiply-adds of one run."""
        return sum(node.macs for node in self.nodes)

    @property
    def int8_share(self) -> float | None:
        """Share of all multiply-adds that int8 kernels do; None where there are none."""
        return sum(n.int8_macs for n in self.nodes) / self.macs if self.macs else None

    @property
    def weight_macs(self) -> int:
        """Multiply-adds with constant weights."""
        return sum(node.weight_macs for node in self.nodes)

    @property
    def int8_weight_share(self) -> float | None:
        """Share of the multiply-adds with constant weights that int8 kernels do."""
        done = sum(min(node.int8_macs, node.weight_macs) for node in self.nodes)
        return done / self.weight_macs if self.weight_macs else None

    def rate(self, *roles: Role) -> float | None:
        """Return the billions of multiply-adds per second of the products of some roles, or None."""
        chosen = [node for node in self.nodes if node.role in roles and node.macs]
        ms = _total_ms(chosen)
        return sum(node.macs for node in chosen) / ms / 1e6 if ms else None

    def ms_of(self, *roles: Role) -> float | None:
        """Return the time of all nodes of some roles."""
        return _total_ms(node for node in self.nodes if node.role in roles)

    def op_kinds(self) -> tuple[Group, ...]:
        """Return the nodes grouped by op type and role, the slowest first."""
        return _grouped(self.nodes, reasons=False)

    def conversions(self) -> tuple[Group, ...]:
        """Return what turns float into codes and back, and the explicit smoothing, grouped by reason."""
        roles = ("quantize", "dequantize", "smoothing")
        return _grouped((node for node in self.nodes if node.role in roles), reasons=True)

    def stayed_float(self) -> tuple[Group, ...]:
        """Return the nodes that compute in float, grouped by reason; products first, then the slowest."""
        found = _grouped((n for n in self.nodes if n.role in ("float product", "float op")), reasons=True)
        return tuple(sorted(found, key=lambda group: group.role != "float product"))

    def bound_ms(self, roofline: Roofline) -> float:
        """Return the time of all multiply-adds at the rates of a roofline."""
        int8 = sum(node.int8_macs for node in self.nodes)
        return (int8 / roofline.int8_gmacs_per_s + (self.macs - int8) / roofline.float_gmacs_per_s) / 1e6

    def to_json(self, roofline: Roofline | None, *, every_node: bool) -> dict[str, Any]:
        """Return the point as JSON values.

        Args:
            roofline: Adds `bound_ms`; None adds nothing.
            every_node: False keeps the products and the slowest others only.
        """
        slowest = sorted((n for n in self.nodes if n.ms is not None), key=lambda n: -(n.ms or 0))
        kept = {*(n.name for n in slowest[:_SLOWEST_KEPT]), *(n.name for n in self.nodes if n.macs)}
        return {
            "shape": self.shape,
            "runs": self.runs,
            "run_ms": self.run_ms,
            "profiled_ms": self.profiled_ms,
            "kernels_ms": self.kernels_ms,
            "macs": self.macs,
            "weight_macs": self.weight_macs,
            "int8_share": self.int8_share,
            "int8_weight_share": self.int8_weight_share,
            "int8_gmacs_per_s": self.rate("int8 product"),
            "float_gmacs_per_s": self.rate("float product"),
            "bound_ms": self.bound_ms(roofline) if roofline else None,
            "op_kinds": [group.to_json(names=every_node) for group in self.op_kinds()],
            "conversions": [group.to_json(names=True) for group in self.conversions()],
            "stayed_float": [
                group.to_json(names=every_node or group.role == "float product")
                for group in self.stayed_float()
            ],
            "predicted": [{**asdict(p), "gain_ms": p.gain_ms} for p in self.predictions],
            "nodes": [asdict(node) for node in self.nodes if every_node or node.name in kept],
        }


@dataclass(frozen=True)
class Explanation:
    """Where the time of a graph goes, and why.

    Attributes:
        target: Name of the profile.
        runtime: Version of ONNX Runtime whose graph and kernels these are.
        threads: Intra-op threads.
        points: One per input shape.
        roofline: What this machine reaches; None where times would not be the target's.
        note: Why times are left out, or what they mean.
    """

    target: str
    runtime: str
    threads: int
    points: tuple[ExplainedPoint, ...]
    roofline: Roofline | None
    note: str

    @property
    def timed(self) -> bool:
        """Whether the times are there."""
        return self.roofline is not None

    def to_json(self, *, every_node: bool = True) -> dict[str, Any]:
        """Return the explanation as JSON values; figures have four significant digits.

        Args:
            every_node: False keeps the products and the slowest others only, for a report.
        """
        found = {
            "target": self.target,
            "runtime": self.runtime,
            "threads": self.threads,
            "note": self.note,
            "roofline": asdict(self.roofline) if self.roofline else None,
            "points": [point.to_json(self.roofline, every_node=every_node) for point in self.points],
        }
        rounded = _rounded(found)
        assert isinstance(rounded, dict)
        return rounded


def _total_ms(nodes: Iterable[ExplainedNode]) -> float | None:
    times = [node.ms for node in nodes]
    return sum(ms for ms in times if ms is not None) if any(ms is not None for ms in times) else None


def _grouped(nodes: Iterable[ExplainedNode], *, reasons: bool) -> tuple[Group, ...]:
    groups: dict[tuple[str, Role, str, bool | None], list[ExplainedNode]] = {}
    for node in nodes:
        why, needed = (node.why, node.needed) if reasons else ("", None)
        groups.setdefault((node.op, node.role, why, needed), []).append(node)
    found = [
        Group(
            op,
            role,
            why,
            needed,
            tuple(node.name for node in members),
            sum(node.macs for node in members),
            _total_ms(members),
        )
        for (op, role, why, needed), members in groups.items()
    ]
    return tuple(sorted(found, key=lambda group: (-(group.ms or 0), -len(group.nodes))))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
