"""Run as a process of its own: open one model, run it once, print the peak memory that this added."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgekit.golden import Golden
from edgekit.record import peak_memory_bytes
from edgekit.runtime import open_session


def main(argument: str) -> int:
    """Return the bytes that opening and running the model added to the peak.

    Args:
        argument: JSON with `model`, `golden`, `threads` and `session_options`.
    """
    request = json.loads(argument)
    batch = Golden.load(Path(request["golden"])).batches[0]
    from edgekit.runtime import import_onnxruntime

    import_onnxruntime()
    before = peak_memory_bytes()
    session = open_session(
        Path(request["model"]), threads=request["threads"], session_options=request["session_options"]
    )
    names = {value.name for value in session.get_inputs()}
    session.run(None, {name: value for name, value in batch.inputs.items() if name in names})
    return peak_memory_bytes() - before


if __name__ == "__main__":
    sys.stdout.write(f"{main(sys.argv[1])}\n")
