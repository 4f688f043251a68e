#!/usr/bin/env bash
# One virtual environment per file in benchmarks/requirements/: bash benchmarks/environments.sh [NAME ...]
# They go to build/benchmarks/venvs/. One that cannot be installed leaves NAME.failed there with pip's reason,
# which the harness puts into the table.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
venvs=build/benchmarks/venvs
torch=$(sed -n 's/^torch==//p' constraints.txt)
mkdir -p "$venvs"

install() {
    local pip=("$venvs/$1/bin/python" -m pip install --quiet --disable-pip-version-check)
    "$python" -m venv "$venvs/$1" || return 1
    # On Linux, PyPI's torch brings gigabytes of CUDA libraries: the CPU build of the same version first.
    "${pip[@]}" --no-deps "torch==$torch+cpu" 2>/dev/null \
        || "${pip[@]}" --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$torch" 2>/dev/null \
        || true
    "${pip[@]}" -r "benchmarks/requirements/$1.txt"
}

names=("$@")
((${#names[@]})) || names=($(basename -s .txt benchmarks/requirements/*.txt))
for name in "${names[@]}"; do
    stamp=$venvs/$name.installed
    if cmp -s "$stamp" "benchmarks/requirements/$name.txt"; then
        echo "$name: up to date"
        continue
    fi
    rm -rf "${venvs:?}/$name" "$stamp" "$venvs/$name.failed"
    if install "$name" > "$venvs/$name.log" 2>&1; then
        cp "benchmarks/requirements/$name.txt" "$stamp"
        echo "$name: installed"
    else
        grep '^ERROR' "$venvs/$name.log" | tail -n 3 > "$venvs/$name.failed"
        [[ -s $venvs/$name.failed ]] || tail -n 3 "$venvs/$name.log" > "$venvs/$name.failed"
        echo "$name: not installed, see $venvs/$name.log"
    fi
done
