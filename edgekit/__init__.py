"""edgekit takes a PyTorch model to edge devices: small, quantized by the device's rules, proved, packaged.

The public verbs; each is imported when it is first used, so that `import edgekit` costs nothing::

    export(recipe, output)        a model all the way to packages       -> ExportResult
    compress_model(recipe, output)  a smaller model, as a directory     -> CompressResult
    distill_model(recipe, output)  a trained student, as a directory    -> CompressResult
    revalidate(package)           a package's gates once more           -> Verdict
    explain(package)              where its time goes, and why          -> Explanation
    compare(packages)             packages side by side                 -> Comparison
    open_package(path)            a package whose files are intact      -> Package
    load_profile(target)          a target's rules                      -> TargetProfile

The stages, one by one, are the functions of the rooms: `edgekit.source.load`, `edgekit.to_onnx.export_model`
and `record_golden`, `edgekit.optimize.optimize`, `edgekit.quantize.calibrate` and `quantize`,
`edgekit.validate.validate`, `edgekit.package.write_package`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "export": "edgekit.pipeline",
    "ExportResult": "edgekit.pipeline",
    "compress_model": "edgekit.compressing",
    "CompressResult": "edgekit.compressing",
    "distill_model": "edgekit.compressing",
    "revalidate": "edgekit.revalidation",
    "explain": "edgekit.explaining",
    "Explanation": "edgekit.validate.explanation",
    "compare": "edgekit.comparing",
    "Comparison": "edgekit.report.compare",
    "open_package": "edgekit.package",
    "write_package": "edgekit.package",
    "Package": "edgekit.package",
    "load_profile": "edgekit.profile",
    "TargetProfile": "edgekit.profile",
    "Recipe": "edgekit.recipe",
    "ModelRef": "edgekit.model",
    "TorchModel": "edgekit.model",
    "OnnxModel": "edgekit.model",
    "Golden": "edgekit.golden",
    "Verdict": "edgekit.record",
    "StepRecord": "edgekit.record",
    "EdgekitError": "edgekit.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name from the room that owns it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgekit' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
