"""Reports as a pipeline would hand them over: three targets, one that fails, one not timed, one slower."""

from dataclasses import replace

import numpy as np
import pytest

from edgekit.machine import Machine
from edgekit.model import Signature, TensorSpec
from edgekit.profile import load_profile
from edgekit.record import Check, Footprint, LatencyPoint, OutputError, Skip, StepRecord, Verdict
from edgekit.report.document import TargetReport

MB = 1_000_000
SIGNATURE = Signature(
    (
        TensorSpec("input_ids", "int64", ("batch", "sequence")),
        TensorSpec("attention_mask", "int64", ("batch", "sequence")),
    ),
    (TensorSpec("sentence_embedding", "float32", ("batch", 384)),),
)
MACHINE = Machine(
    "x86_64", "AMD EPYC 9R14", ("avx2", "avx512_vnni", "avx512f", "fma"), 2, 25_276_502_016, "Linux"
)
HISTORY = (
    StepRecord(
        "load",
        "sentence-transformers",
        "Read the transformer, mean pooling and normalization from 7 files.",
        facts={"architecture": "BertModel", "parameters": 22_713_216, "revision": None},
        seconds=1.31,
        peak_memory_bytes=612 * MB,
    ),
    StepRecord(
        "export",
        "dynamo",
        "Exported with torch.export; batch and sequence are dynamic.",
        facts={
            "opset": 20,
            "ir_version": 10,
            "golden_max_relative_error": 2.1e-6,
            "exporter": "transformers",
        },
        bytes_after=90_771_365,
        seconds=21.9,
        peak_memory_bytes=1480 * MB,
    ),
    StepRecord(
        "optimize",
        "fold-constants",
        "Folded 42 constant nodes and removed 3 that nothing reads.",
        bytes_before=90_771_365,
        bytes_after=90_612_004,
        seconds=0.84,
        peak_memory_bytes=1480 * MB,
    ),
    StepRecord(
        "quantize",
        "insert-qdq",
        "Quantized 36 MatMul and 3 embedding tables; outputs of MatMul stay float.",
        skipped=(
            *(
                Skip(
                    f"/encoder/layer.{layer}/attention/MatMul_{part}",
                    "both inputs are activations; softmax is too peaked for 8 bits",
                )
                for layer in range(6)
                for part in (1, 2)
            ),
            Skip("/pooler/dense/MatMul", "its output is not an output of the task"),
        ),
        facts={
            "calibration_samples": 256,
            "smoothing_alpha": 0.8,
            "ranges": {"method": "mse", "tensors": 36, "widest": "/encoder/layer.5/output/Add"},
            "quantized_weight_share": 0.9942,
        },
        bytes_before=90_612_004,
        bytes_after=22_938_112,
        seconds=14.2,
        peak_memory_bytes=1710 * MB,
    ),
)
DATA = {
    "calibration": {
        "file": "texts.txt",
        "samples_used": 256,
        "samples_found": 1873,
        "duplicates_dropped": 12,
        "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "lengths": {"p05": 9, "median": 41, "p95": 187, "longest": 256},
    },
    "validation": {"file": "texts.txt, held out", "samples_used": 128, "labels": None},
    "warnings": ["3 of 256 samples were cut to 256 tokens"],
}


def embedding_checks(values: tuple[float, ...]) -> tuple[Check, ...]:
    mean, p05 = float(np.mean(values)), float(np.percentile(values, 5))
    return (
        Check(
            "cosine_mean", "Cosine similarity, mean", mean, "", ">=", 0.99, "below it rankings start to move"
        ),
        Check(
            "cosine_p05", "Cosine similarity, 5th percentile", p05, "", ">=", 0.98, "few samples may be worse"
        ),
        Check("cosine_min", "Cosine similarity, worst", min(values)),
        Check(
            "rank_correlation",
            "Rank correlation of similarities",
            0.9971,
            "",
            ">=",
            0.98,
            "search keeps order",
        ),
        Check(
            "size_ratio", "File size, float over shipped", 3.957, "×", ">=", 3.5, "int8 tables and weights"
        ),
        Check("recall", "Recall at 1", None, "", ">=", 0.9, "no labels in the validation data"),
    )


def spread(center: float, width: float, count: int = 128) -> tuple[float, ...]:
    return tuple(sorted(center - width * ((i * 37 % count) / count) ** 3 for i in range(count)))


def point(shape: str, float_ms: float, speedup: float, spread: float) -> LatencyPoint:
    shipped = float_ms / speedup
    return LatencyPoint(
        shape, 2, 60, float_ms, float_ms * 1.09, shipped, shipped * 1.11, speedup,
        speedup * (1 - spread), speedup * (1 + spread), 0.95,
    )  # fmt: skip


def report_on(target: str, values, latency, note, notes=()) -> TargetReport:
    return TargetReport(
        model_name="all-MiniLM-L6-v2",
        task="sentence-embedding",
        source_sha256="8a3c1f0f7f0d7a47b2b25cf7c0e3b1f4c2f6a1b77d1dfd1cb5ad4a8a4c7b90d1",
        profile=load_profile(target),
        signature=SIGNATURE,
        machine=MACHINE,
        versions={"edgekit": "0.1.0", "python": "3.11.7", "onnxruntime": "1.31.1", "torch": "2.13.0+cpu"},
        verdict=Verdict(
            target=target,
            checks=embedding_checks(values),
            latency=latency,
            latency_note=note,
            float_size=Footprint(90_771_365, 84_012_331, 181.2, 214 * MB),
            quantized_size=Footprint(22_938_112, 18_501_007, 64.9, 88 * MB),
            output_errors=(OutputError("sentence_embedding", "cosine", values),),
            notes=notes,
        ),
        history=HISTORY,
        command="edgekit export sentence-transformers/all-MiniLM-L6-v2 --target cpu-x86 --target arm64 "
        "--target cpu-x86-portable --calibration texts.txt -o build/minilm",
        data=DATA,
    )


@pytest.fixture
def fast() -> TargetReport:
    return report_on(
        "cpu-x86",
        spread(0.9995, 0.006),
        (point("1x16", 3.94, 2.41, 0.03), point("1x128", 21.7, 2.08, 0.02), point("8x64", 88.2, 1.02, 0.05)),
        "float and quantized in turns in one process, 2 threads",
    )


@pytest.fixture
def untimed_and_failing() -> TargetReport:
    return report_on(
        "arm64",
        spread(0.9985, 0.031),
        (),
        "the target is aarch64 and this machine is x86_64",
    )


@pytest.fixture
def slower() -> TargetReport:
    return report_on(
        "cpu-x86-portable",
        spread(0.999, 0.007),
        (point("1x16", 3.94, 0.62, 0.04), point("1x128", 21.7, 0.88, 0.02)),
        "",
        ("Int8 is not faster than float on this machine, and this target wants speed: ship the float file.",),
    )


@pytest.fixture
def reports(fast, untimed_and_failing, slower) -> list[TargetReport]:
    return [fast, untimed_and_failing, slower]


@pytest.fixture
def hostile(fast) -> TargetReport:
    evil = '<script>alert("x")</script>'
    record = StepRecord("quantize", evil, evil, (Skip(evil, evil),), {evil: evil, "deep": {evil: [evil]}})
    verdict = replace(
        fast.verdict,
        target=evil,
        checks=(Check(evil, evil, 1.0, evil, ">=", 0.5, evil),),
        latency=(replace(fast.verdict.latency[0], shape=evil),),
        latency_note=evil,
        output_errors=(OutputError(evil, evil, (0.5, 0.9)),),
        notes=(evil,),
    )
    return replace(
        fast,
        model_name=evil,
        task=evil,
        source_sha256=evil,
        signature=Signature((TensorSpec(evil, evil, (evil,)),), ()),
        machine=replace(MACHINE, cpu=evil, features=(evil,)),
        versions={evil: evil},
        verdict=verdict,
        history=(record,),
        command=evil,
        data={evil: {evil: [evil, {evil: evil}]}},
    )
