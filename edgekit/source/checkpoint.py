"""Weight files: which to load, whether they are whole and safe, and their digest."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit.errors import ModelError
from edgekit.store import sha256_file, sha256_json

# Source: safetensors' own limit, github.com/huggingface/safetensors, MAX_HEADER_SIZE.
_MAX_HEADER_BYTES = 100_000_000
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
         "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64}  # fmt: skip
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_NUMBERS_AT_ONCE = 1 << 22  # checked for NaN
_FOREIGN = ("*.h5", "*.msgpack", "*.onnx", "*.gguf")


def weight_files(folder: Path, *, allow_pickle: bool) -> tuple[Path, ...]:
    """Return the checkpoint's weight files, each checked to be whole and safe to load.

    Args:
        folder: A model directory, or one module's folder in it.
        allow_pickle: Take a pickle checkpoint where there are no safetensors.

    Raises:
        ModelError: There are none, one is missing or damaged, or only a pickle is there and it is not
            allowed or holds more than tensors.
    """
    files = _listed(folder, "model.safetensors")
    if files:
        for file in files:
            check_safetensors(file)
        return files
    pickles = sorted(
        path for pattern in _PICKLES for path in folder.glob(pattern) if path.name != "training_args.bin"
    )
    if pickles and not allow_pickle:
        raise ModelError(
            f"{folder} has only a pickle checkpoint ({pickles[0].name}); loading a pickle can run code",
            "Convert it to safetensors (save_pretrained), or give --allow-pickle to load tensors only.",
        )
    files = _listed(folder, "pytorch_model.bin")
    if files:
        for file in files:
            check_pickle(file)
        return files
    others = sorted(path.name for pattern in _PICKLES + _FOREIGN for path in folder.glob(pattern))
    found = f"; it has {', '.join(others)}, which cannot be loaded" if others else ""
    raise ModelError(
        f"{folder} has no model.safetensors{found}", "Save the model with save_pretrained, which writes one."
    )


def _listed(folder: Path, name: str) -> tuple[Path, ...]:
    """Return the one file of that name, or the shards that its index lists."""
    if (folder / name).exists():
        return (folder / name,)
    index = folder / f"{name}.index.json"
    if not index.exists():
        return ()
    shards = read_json(index).get("weight_map", {})
    names = sorted(set(shards.values())) if isinstance(shards, dict) else []
    if not names or not all(isinstance(shard, str) for shard in names):
        raise ModelError(f"{index} lists no weight files")
    files = tuple(folder / shard for shard in names)
    for file in files:
        if file.parent.resolve() != folder.resolve():
            raise ModelError(f"{index} names {file.name!r}, which lies outside the model's folder")
        if not file.exists():
            raise ModelError(f"{file} is missing; {index.name} lists it", "Download the model again.")
    return files


def check_safetensors(path: Path) -> None:
    """Check a safetensors file's header and length without reading its tensors.

    Raises:
        ModelError: The file is empty, truncated, a pointer file of Git LFS, or not safetensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            raise ModelError(f"{path} is a Git LFS pointer, not the weights", "Run: git lfs pull")
        header_bytes = int.from_bytes(start, "little")
        if len(start) < 8 or header_bytes > min(size - 8, _MAX_HEADER_BYTES):
            raise ModelError(f"{path} is corrupt or truncated: {size} bytes hold no safetensors header")
        try:
            header = json.loads(file.read(header_bytes))
            ends = [_tensor_end(name, entry) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{path} is corrupt: its safetensors header cannot be read ({error})") from None
    expected = 8 + header_bytes + max(ends, default=0)
    if not ends:
        raise ModelError(f"{path} holds no tensors")
    if size != expected:
        what = "truncated" if size < expected else "corrupt"
        raise ModelError(
            f"{path} is {what}: it has {size} bytes where its header says {expected}",
            "Download the model again.",
        )


def _tensor_end(name: str, entry: dict[str, Any]) -> int:
    begin, end = entry["data_offsets"]
    bits = _BITS.get(entry["dtype"])
    if not 0 <= begin <= end or (bits and math.prod(entry["shape"]) * bits != (end - begin) * 8):
        raise ValueError(f"wrong extent of tensor {name!r}")
    return int(end)


def check_pickle(path: Path) -> None:
    """Check that a pickle checkpoint loads with `weights_only=True`.

    Raises:
        ModelError: It holds more than tensors, or is damaged.
    """
    import torch

    try:
        torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, OSError: whatever the bytes provoke
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        raise ModelError(
            f"{path} is damaged or holds more than tensors, and was not loaded: {reason[:200]}"
        ) from None


def check_finite(module: Any) -> None:
    """Check that no weight is NaN or infinite; buffers may hold infinities, as masks do.

    Raises:
        ModelError: A tensor is not finite; it is named.
    """
    import torch

    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name, tensor in module.state_dict().items():
        if not torch.is_floating_point(tensor):
            continue
        # Some numbers at a time: torch makes several copies of what it is asked about.
        parts = tensor.flatten().split(_NUMBERS_AT_ONCE)
        count = sum(int(((~part.isfinite()) if name in parameters else part.isnan()).sum()) for part in parts)
        if count:
            raise ModelError(
                f"the weights hold NaN or infinity: {count} of {tensor.numel()} values of {name}",
                "The checkpoint is broken; take an earlier one.",
            )


def digest(folder: Path, files: Iterable[Path]) -> str:
    """Return one SHA-256 over files, each with its name relative to `folder`."""
    return sha256_json({file.relative_to(folder).as_posix(): sha256_file(file) for file in files})


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object.

    Raises:
        ModelError: The file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"cannot read {path}: it holds no JSON object")
    return value
