"""`edgekit distill` as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from itertools import product

import pytest


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "lesson.txt"
    words = ("old", "new", "red", "big"), ("dog", "cat", "man"), ("sat", "ran", "fell"), ("road", "hill")
    path.write_text("\n".join(f"the {a} {b} {c} on the {d}" for a, b, c, d in product(*words)), "utf-8")
    return path


def test_it_says_what_was_lost_won_back_and_comes_next(run, tiny_st_dir, data, tmp_path) -> None:
    ran = run(
        "distill",
        tiny_st_dir,
        "-d",
        data,
        "--fresh-layers",
        "1",
        "--steps",
        "4",
        "--batch",
        "8",
        "-o",
        tmp_path / "out",
    )
    assert ran.code == 0, ran.err
    assert "distillation" in ran.out
    assert "Trained for 4 steps of 8 samples" in ran.out
    assert "distill: " in ran.err
    assert f"edgekit export {tmp_path / 'out'}" in ran.out


def test_flags_become_the_table_of_the_recipe(run, tiny_st_dir, data, tmp_path) -> None:
    flags = (
        "--fresh-layers",
        "1",
        "--steps",
        "2",
        "--batch",
        "4",
        "--activation",
        "relu",
        "--norms",
        "one-per-layer",
        "--temperature",
        "3",
        "--finish-for",
        "cpu-x86",
        "--finish-steps",
        "2",
        "--embeddings",
        "int4",
    )
    ran = run("distill", tiny_st_dir, "-d", data, *flags, "--json", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["parameters"] < json.loads(ran.out)["parameters_before"]
    recipe = tomllib.loads((tmp_path / "out" / "recipe.toml").read_text())
    table = recipe["distill"]
    assert (table["finish"]["target"], table["finish"]["steps"]) == ("cpu-x86", 2)
    assert recipe["quantize"]["embeddings"] == "int4"
    assert (table["steps"], table["batch"], table["fresh"]) == (2, 4, {"layers": 1})
    assert table["changes"] == {"activation": "relu", "norms": "one-per-layer"}
    assert table["losses"]["temperature"] == 3
    configs = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("config.json")]
    assert [config["hidden_act"] for config in configs if "hidden_act" in config] == ["relu"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "nothing says who learns"),
        (("--student", "nowhere"), "nowhere"),
        (("--fresh-layers", "50"), "Give a smaller student"),
        (("--fresh-layers", "1", "--activation", "cube"), "activation"),
        (("--fresh-layers", "1", "--precision", "fp16"), "fp16 needs a CUDA GPU"),
        (("--fresh-layers", "1", "--steps", "-1"), "steps"),
        (("--fresh-layers", "1", "--steps", "0"), "trains nothing"),
        (("--fresh-layers", "1", "--finish-steps", "3"), "no target whose codes"),
        (("--fresh-layers", "1", "--finish-for", "cpu-x87"), "unknown target"),
        (("--fresh-layers", "1", "--on-policy", "1.5"), "on_policy"),
        (("--fresh-layers", "1", "--on-policy", "0.5"), "on_policy is nothing for sentence-embedding"),
        (("--fresh-layers", "1", "--reverse", "1"), "reverse is nothing for sentence-embedding"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_met_leaves_nothing(
    run, tiny_st_dir, data, tmp_path, flags, message
) -> None:
    ran = run("distill", tiny_st_dir, "-d", data, *flags, "-o", tmp_path / "out")
    assert ran.code in (2, 3), ran.err
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_says_that_the_same_command_goes_on(tiny_st_dir, data, tmp_path) -> None:
    ask = ["distill", str(tiny_st_dir), "-d", str(data), "--fresh-layers", "1", "--steps", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit", *ask, "-o", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "distill: step" in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130, rest
    kept = tmp_path / "out.training"
    said = f"error: interrupted; the same command goes on with what {kept} keeps of the training"
    assert rest.strip().splitlines()[-1] == said
    assert kept.is_dir()


@pytest.mark.slow
def test_several_processes_train_together_and_the_first_one_writes_and_tells(tiny_st_dir, data, tmp_path):
    ask = ["distill", str(tiny_st_dir), "-d", str(data), "--fresh-layers", "1", "--steps", "4"]
    ask += ["--batch", "8", "--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29543"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*launch, "-m", "edgekit", *ask], env=environment, capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Trained for 4 steps of 8 samples") == 1
    assert ran.stderr.count("measuring the student before it learns") == 1
    assert "teacher outputs: " in ran.stderr
    assert (tmp_path / "out" / "compress.json").is_file()
    (cache,) = (tmp_path / "cache").iterdir()
    assert not any(path.is_dir() for path in cache.iterdir())
