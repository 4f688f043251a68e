#!/usr/bin/env bash
# Runs the tests of loading and exporting on other versions of transformers, each laid over the environment
# in a folder of its own, so that the environment stays as it is.
#
#   tools/test_transformers_versions.sh            the oldest version with transformers.exporters, 5.13.0
#   tools/test_transformers_versions.sh 5.18.0 5.22.0
#
# PYTHON chooses the interpreter (default: .venv/bin/python). A version that the adapter serves has to take
# its road: the tests fail where it falls back to the plain one.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(5.13.0)

for version in "${versions[@]}"; do
  overlay=build/transformers-$version
  mkdir -p "$overlay"
  # Only what the version needs in another version than the environment has: torch and numpy stay.
  "$python" -m pip install --quiet --quiet --no-deps --upgrade --target "$overlay" "transformers==$version"
  "$python" - "$overlay" > "$overlay/needs.txt" <<'PYTHON'
import sys
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

folder = next(Path(sys.argv[1]).glob("transformers-*.dist-info"))
for line in Distribution.at(folder).requires or ():
    need = Requirement(line)
    if need.marker and not need.marker.evaluate({"extra": ""}):
        continue
    try:
        if need.specifier.contains(version(need.name), prereleases=True):
            continue
    except PackageNotFoundError:
        pass
    print(need)
PYTHON
  if [ -s "$overlay/needs.txt" ]; then
    "$python" -m pip install --quiet --upgrade --target "$overlay" -r "$overlay/needs.txt"
  fi
  echo "transformers $version"
  PYTHONPATH="$overlay:.${PYTHONPATH:+:$PYTHONPATH}" "$python" -m pytest -q -p no:cacheprovider tests/source tests/to_onnx
done
