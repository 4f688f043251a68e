"""Models of two kinds through the profile for Qualcomm's processor, and on it in simulation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit import Recipe, export
from edgekit import graph as g
from edgekit.golden import Golden
from edgekit.optimize.finite_masks import MASKED
from edgekit.package import Package
from edgekit.package.htp_context import write_htp_context
from edgekit.quantize.whole import left_in_float
from edgekit.recipe import DataOptions, LatencyOptions
from edgekit.runners import Job, Runner
from edgekit.runners.native import Native
from edgekit.runners.qnn import HTPS

V75 = next(htp for htp in HTPS if htp.arch == "75")


@pytest.fixture(scope="module", params=["text", "image"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("qnn")
    if request.param == "text":
        places = ("road", "hill", "bed", "mat")
        texts = [f"the {one} cat sat on the {other}" for one in "abcdefghij" for other in places]
        data = folder / "texts.txt"
        data.write_text("\n".join(texts), encoding="utf-8")
        model = request.getfixturevalue("tiny_st_dir")
    else:
        from PIL import Image

        data = folder / "images"
        data.mkdir()
        rng = np.random.default_rng(0)
        for index in range(40):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(data / f"{index}.png")
        model = request.getfixturevalue("tiny_vit_dir")
    recipe = Recipe(
        model=str(model),
        targets=("android-qnn",),
        calibration=DataOptions(data=str(data)),
        gates={"clip_rate": 0.1},  # forty samples are few
        latency=LatencyOptions(runs=0),
    )
    return export(recipe, folder / "out").packages[0]


def _job(package: Package, samples: int = 4) -> Job:
    golden = Golden.load(package.path / "golden.npz")
    inputs = tuple(dict(batch.inputs) for batch in golden.batches[:samples])
    return Job(package.path / "model.onnx", inputs, tuple(golden.output_names))


def test_the_package_has_one_shape_and_no_node_in_float(package: Package) -> None:
    loaded = g.load(package.path / "model.onnx")
    assert left_in_float(loaded) == ()
    assert loaded.opset_imports[""] == 21
    signature = package.manifest["signature"]
    for spec in (*signature["inputs"], *signature["outputs"]):
        assert all(isinstance(size, int) for size in spec["shape"])
        assert spec["shape"][0] == 1
    held = [g.constant(value) for value in loaded.graph.initializers.values()]
    assert all(array.min() >= MASKED for array in held if array.dtype == np.float32)


def test_the_program_in_its_readme_runs_as_it_stands(package: Package) -> None:
    import subprocess
    import sys

    text = (package.path / "README.md").read_text(encoding="utf-8")
    program = text.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", program], cwd=package.path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_the_simulated_processor_gives_the_answers_of_the_cpu_with_nothing_left_to_it(
    package: Package, ready: Callable[[Runner], Runner]
) -> None:
    job = _job(package)
    found, expected = ready(V75).run(job), Native().run(job)
    name = job.outputs[0]
    assert found.facts["compiled_bytes"]
    for here, there in zip(found.outputs, expected.outputs, strict=True):
        a, b = here[name].ravel(), there[name].ravel()
        assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > 0.999


def test_a_package_that_was_not_compiled_says_so(package: Package) -> None:
    record = next(r for r in package.manifest["history"] if r["step"] == "htp-v75")
    assert record["did"].startswith("not compiled for Hexagon v75")
    assert "runners install" in record["skipped"][0]["why"]
    assert "not compiled for Hexagon v75" in (package.path / "README.md").read_text(encoding="utf-8")
    assert not (package.path / "model.htp-v75.onnx").exists()


def test_a_graph_is_compiled_into_one_file_with_the_same_bytes_each_time(
    package: Package, ready: Callable[[Runner], Runner], tmp_path: Path
) -> None:
    ready(V75)
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        record = write_htp_context(package.path / "model.onnx", tmp_path / name, "75")
        assert not record.skipped
        made.append((tmp_path / name / "model.htp-v75.onnx").read_bytes())
    assert made[0] == made[1]
    assert [node.op_type for node in onnx.load_from_string(made[0]).graph.node] == ["EPContext"]
