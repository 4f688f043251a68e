"""Olive's `OnnxStaticQuantization` pass, with its defaults, on the plain export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.job import Artifact, Job, graph_inputs

TITLE = "Olive static (defaults of its pass)"
ENVIRONMENT = "olive"


def make(job: Job) -> Artifact:
    """Run the pass through Olive's own engine."""
    import olive
    from olive.data.config import DataComponentConfig, DataConfig
    from olive.data.registry import Registry

    names = graph_inputs(job.float_onnx)

    class Texts:
        """The calibration texts as a torch data set of (inputs, label)."""

        def __init__(self) -> None:
            self.rows = [{name: sample[name][0] for name in names} for sample in job.samples()]

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], int]:
            return self.rows[index], 0

    Registry.register_dataset("edgekit_benchmark_texts")(lambda **_: Texts())
    load = DataComponentConfig(type="edgekit_benchmark_texts")
    plain = DataComponentConfig(type="skip_pre_process")
    data = DataConfig(name="texts", load_dataset_config=load, pre_process_data_config=plain)
    result = olive.run(
        {
            "input_model": {"type": "OnnxModel", "model_path": str(job.float_onnx)},
            "data_configs": [json.loads(data.model_dump_json())],
            "passes": {"quantize": {"type": "OnnxStaticQuantization", "data_config": "texts"}},
            "output_dir": str(job.folder / "olive"),
            "cache_dir": str(job.folder / "cache"),
        }
    )
    return Artifact(Path(result.get_best_candidate().model_path))
