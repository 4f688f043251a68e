"""optimum-onnx static on the graph that its O2 fuses: MinMax, U8S8, per channel, its choice of operators."""

from __future__ import annotations

from benchmarks.competitors import optimum_onnx_dynamic
from benchmarks.job import MAX_TOKENS, Artifact, Job

TITLE = "optimum-onnx static, on its fused graph"
ENVIRONMENT = "optimum-onnx"


def export(job: Job) -> None:
    """Write optimum's own export, fused."""
    from optimum.onnxruntime import ORTOptimizer
    from optimum.onnxruntime.configuration import AutoOptimizationConfig

    optimum_onnx_dynamic.export(job)
    optimizer = ORTOptimizer.from_pretrained(job.folder / "float")
    optimizer.optimize(save_dir=job.folder / "fused", optimization_config=AutoOptimizationConfig.O2())


def make(job: Job) -> Artifact:
    """Calibrate on the texts, quantize statically."""
    from datasets import Dataset
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig

    quantizer = ORTQuantizer.from_pretrained(job.folder / "fused", file_name="model_optimized.onnx")
    dataset = Dataset.from_list([{n: row[0].tolist() for n, row in s.items()} for s in job.padded()])
    config = AutoQuantizationConfig.avx512_vnni(is_static=True, per_channel=True)
    ranges = quantizer.fit(
        dataset=dataset,
        calibration_config=AutoCalibrationConfig.minmax(dataset),
        operators_to_quantize=config.operators_to_quantize,
        batch_size=1,
    )
    quantizer.quantize(save_dir=job.folder, quantization_config=config, calibration_tensors_range=ranges)
    return Artifact(
        job.folder / "model_optimized_quantized.onnx", note=f"calibrated on texts padded to {MAX_TOKENS}"
    )
