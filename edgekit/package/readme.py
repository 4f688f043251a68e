"""The package's README.md, with a short program that runs as it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.profile import Quantization, TargetProfile
from edgekit.record import Check

_HEAD = """\
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import
import numpy as np
import onnxruntime as ort
"""

_TEXT = """\
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({max_length})
tokenizer.enable_padding(direction={side!r}, pad_id={pad_id}, pad_type_id={pad_type_id}{length})
encoded = tokenizer.encode_batch({texts})
fields = {fields}
inputs = {{name: np.array([getattr(e, field) for e in encoded], np.int64) for name, field in fields.items()}}
"""

_SAMPLES = ["The cat sits outside.", "A man is playing the guitar."]

_ARRAYS = """\

golden = np.load("golden.npz")  # recorded inputs; put your own, shaped alike, in their place
inputs = {{name: golden["0/in/" + name] for name in {names!r}}}
"""

_TAIL = """\
session = ort.InferenceSession("{model}", {options}providers=["CPUExecutionProvider"])
outputs = session.run({outputs!r}, inputs)
print({show})
"""

_SHOW = {
    "sentence-embedding": "outputs[0] @ outputs[0].T",
    "text-classification": "outputs[0].argmax(axis=-1)",
    "multi-label-text-classification": "outputs[0] > 0",
    "multi-label-image-classification": "outputs[0] > 0",
    "token-classification": "outputs[0].argmax(axis=-1)",
    "image-classification": "outputs[0].argmax(axis=-1)",
    "text-generation": "outputs[0].argmax(axis=-1)",
}
_FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def program(manifest: Mapping[str, Any], profile: TargetProfile) -> str:
    """Return a Python program that runs the model, to be started in the package's folder.

    It needs onnxruntime, and tokenizers for text; nothing of edgekit.
    """
    names = [spec["name"] for spec in manifest["signature"]["inputs"]]
    outputs = [spec["name"] for spec in manifest["signature"]["outputs"]]
    task, prepare = manifest["model"]["task"], manifest["preprocessing"]
    if prepare["kind"] == "text":
        padding = prepare["padding"]
        static = isinstance(padding["to"], int)
        middle = _TEXT.format(
            max_length=prepare["truncation"]["max_length"],
            side=padding["side"],
            pad_id=padding["input_ids"],
            pad_type_id=padding["token_type_ids"],
            length=f", length={padding['to']}" if static else "",
            texts=json.dumps(_SAMPLES[:1] if static else _SAMPLES),
            fields={name: _FIELDS[name] for name in names},
        )
    else:
        middle = _ARRAYS.format(names=names)
    entries = profile.runtime.session_options
    setup = ""
    if entries:
        calls = (f"options.add_session_config_entry({k!r}, {v!r})\n" for k, v in entries.items())
        setup = "options = ort.SessionOptions()\n" + "".join(calls)
    tail = _TAIL.format(
        model=manifest["graphs"]["model"],
        options="options, " if entries else "",
        outputs=outputs,
        show=_SHOW.get(task, "{name: value.shape for name, value in zip(" + repr(outputs) + ", outputs)}"),
    )
    return _HEAD + middle + setup + tail


def readme(manifest: Mapping[str, Any], profile: TargetProfile, checks: tuple[Check, ...]) -> str:
    """Return the README: what this is, how to run it, how close it is to the original.

    Figures of speed are left to report.json: they differ from run to run, and this file should not.
    """
    model, rules = manifest["model"], profile.quantization
    size, before = manifest["files"]["model.onnx"]["bytes"], manifest["float"]["file_bytes"]
    how = _form(manifest["history"], rules)
    text = manifest["preprocessing"]["kind"] == "text"
    needs = "`onnxruntime` and `tokenizers`" if text else "`onnxruntime`"
    rows = [_row(check) for check in checks if check.measured is not None and check.name != "speedup"]
    names = [f"`{name}`" for name in manifest["files"]]
    ort_note = (
        [
            "`model.ort` is for reduced builds of ONNX Runtime; it needs a release no older than the one"
            f" that it was converted with ({manifest['versions']['onnxruntime']}).",
            "",
        ]
        if profile.packaging.ort_format
        else []
    )
    lines = [
        f"# {model['name']} for {profile.name}",
        "",
        f"{profile.title}.",
        "",
        f"Task: {model['task']}. Form: {how}, ONNX opset {manifest['opset']}, IR {manifest['ir_version']};"
        f" {size / 1e6:.1f} MB, the float graph has {before / 1e6:.1f} MB."
        f" Needs ONNX Runtime {manifest['min_runtime']} or newer.",
        "",
        "## Run it",
        "",
        f"In this folder, with {needs} installed:",
        "",
        "```python",
        program(manifest, profile).rstrip(),
        "```",
        "",
        "## How close it is to the original",
        "",
        "Against the PyTorch fp32 model, on samples that calibration did not see:",
        "",
        "| measure | value | allowed |",
        "|---|---|---|",
        *rows,
        "",
        "## What is here",
        "",
        f"{', '.join(names)} and `manifest.json`, which holds each file's digest, the signature and every"
        " step that made them. `edgekit validate .` runs the checks again; `recipe.toml` makes it anew.",
        "",
        *ort_note,
        *_htp_notes(manifest["history"]),
    ]
    return "\n".join(lines)


def _form(history: Sequence[Mapping[str, Any]], rules: Quantization) -> str:
    """Return the form of the graph in words, from the steps that made it."""
    steps = {record["step"]: record for record in history if record["stage"] == "quantize"}
    if not steps:
        return "float"
    if "dynamic" in steps:
        return f"dynamic int8 ({rules.weight_type} weights)"
    reverted = steps.get("mixed", {}).get("facts", {}).get("reverted", ())
    some = f", {len(reverted)} nodes in float" if reverted else ""
    types = f"{rules.activation_type} activations, {rules.weight_type} weights"
    if rules.scope == "whole-graph":
        return f"the whole graph quantized ({types})"
    return f"static int8 ({types}{some})"


def _htp_notes(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what became of compiling for Hexagon processors, a paragraph each."""
    notes = []
    for record in history:
        if record["stage"] == "package" and record["step"].startswith("htp-"):
            file = f"model.{record['step']}.onnx"
            why = "".join(f" ({skip['why']})" for skip in record["skipped"])
            notes += [f"`{file}`: {record['did']}{why}.", ""]
    return notes


def _row(check: Check) -> str:
    unit = f" {check.unit}" if check.unit else ""
    allowed = "" if check.budget is None else f"{check.comparison} {check.budget:g}{unit}"
    return f"| {check.title} | {check.measured:.4g}{unit} | {allowed} |"
