"""Training: it learns, it can be killed at any step without a trace, and it never makes the student worse."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.data import Sample
from edgekit.distill import checkpoint, learner
from edgekit.distill.schedule import TrainingPlan
from edgekit.distill.training import Trained, train
from edgekit.errors import (
    DataError,
    MachineError,
    MissingDependencyError,
    ModelError,
    RecipeError,
    StorageError,
    TrainingError,
)
from edgekit.model import TorchModel
from edgekit.record import Progress, silent
from tests.distill.learners import PLAN, Towards, error_of, net, vectors, without_batch_norm

SAMPLES, HELD_OUT = vectors(30), vectors(12, seed=1)
ROOT = Path(__file__).parents[2]


os.environ["ACCELERATE_USE_CPU"] = "true"  # what is exact is exact on a CPU


def run(
    folder: Path,
    plan: TrainingPlan = PLAN,
    *,
    student: TorchModel | None = None,
    samples: tuple[Sample, ...] = SAMPLES,
    objective: Towards | None = None,
    evaluate: Callable[[TorchModel], dict[str, float]] | None = None,
    identity: dict[str, str] | None = None,
    progress: Progress = silent,
) -> Trained:
    return train(
        student or net(),
        samples,
        objective or Towards(noise=0.1),
        plan,
        evaluate=evaluate or error_of(HELD_OUT),
        watch="closeness",
        folder=folder,
        identity=identity or {"teacher": "mirror"},
        progress=progress,
    )


def bytes_of(model: TorchModel) -> bytes:
    buffer = io.BytesIO()
    torch.save(model.module.state_dict(), buffer)
    return buffer.getvalue()


def without_seconds(trained: Trained) -> list[dict[str, Any]]:
    return [{**asdict(point), "seconds": 0} for point in trained.points]


def same(one: Trained, other: Trained) -> bool:
    facts = [(t.best_step, t.steps_run, t.stopped_early, without_seconds(t)) for t in (one, other)]
    return facts[0] == facts[1] and bytes_of(one.student) == bytes_of(other.student)


def killer(step: int, also: str = "") -> Progress:
    """Return a progress that interrupts when so many steps are done."""

    def progress(stage: str, message: str, fraction: float | None = None) -> None:
        if message.startswith(f"step {step} of ") and also in message:
            raise KeyboardInterrupt

    return progress


class Interrupting(Towards):
    """Is killed in the forward of a step."""

    def __init__(self, step: int) -> None:
        super().__init__(noise=0.1)
        self.step = step

    def __call__(self, outputs: Any, batch: Any, share_done: float) -> dict[str, torch.Tensor]:
        if round(share_done * PLAN.steps) == self.step:
            raise KeyboardInterrupt
        return super().__call__(outputs, batch, share_done)


class TestLearning:
    def test_the_student_gets_better_and_its_loss_falls(self, tmp_path: Path) -> None:
        plan = replace(PLAN, steps=150, evaluate_every=50, checkpoint_every=0)
        trained = run(tmp_path, plan, objective=Towards())
        before, after = trained.points[0], trained.points[-1]
        assert after.quality["closeness"] > before.quality["closeness"] + 0.3
        assert trained.points[-1].losses["near"] < 0.8 * trained.points[1].losses["near"]
        assert [point.step for point in trained.points] == [0, 50, 100, 150]
        assert [point.samples for point in trained.points] == [0, 200, 400, 600]
        assert before.losses == {}
        assert set(after.losses) == {"near", "seen"}

    def test_the_given_student_stays_as_it_is(self, tmp_path: Path) -> None:
        student = net()
        before, inputs = bytes_of(student), torch.ones(2, 6)
        trained = run(tmp_path, student=student)
        assert bytes_of(student) == before
        assert not any(p.requires_grad for p in student.module.parameters())
        assert not any(part.training for part in student.module.modules())
        assert not torch.equal(student.module(x=inputs)["out"], trained.student.module(x=inputs)["out"])

    def test_the_result_is_a_model_like_the_given_one(self, tmp_path: Path) -> None:
        module: Any = run(tmp_path).student.module
        assert not any(part.training for part in module.modules())
        assert not any(p.requires_grad for p in module.parameters())
        assert module.last.weight is module.first.weight
        assert not module._forward_hooks

    def test_batch_norms_learn_their_statistics(self, tmp_path: Path) -> None:
        plan = replace(PLAN, patience=0, evaluate_every=0)
        always_better = iter(range(100))
        trained = run(tmp_path, plan, evaluate=lambda model: {"closeness": float(next(always_better))})
        assert int(trained.student.module.norm.num_batches_tracked) == PLAN.steps  # type: ignore

    def test_the_objective_sees_the_copy_that_is_trained_and_how_far_it_is(self, tmp_path: Path) -> None:
        objective, student = Towards(), net()
        trained = run(tmp_path, student=student, objective=objective)
        (entered,) = objective.entered
        assert entered.module is not student.module
        assert entered.module is not trained.student.module
        assert objective.shares == [step / 12 for step in range(12)]

    def test_what_the_objective_trains_is_trained(self, tmp_path: Path) -> None:
        objective = Towards()
        before = objective.projection.weight.detach().clone()
        run(tmp_path, objective=objective)
        assert not torch.equal(objective.projection.weight, before)

    def test_a_step_without_any_loss_changes_nothing(self, tmp_path: Path) -> None:
        class Nothing(Towards):
            def __call__(self, outputs: Any, batch: Any, share_done: float) -> dict[str, torch.Tensor]:
                return {}

        trained = run(tmp_path, student=without_batch_norm(), objective=Nothing())
        assert bytes_of(trained.student) == bytes_of(without_batch_norm())
        assert [point.losses for point in trained.points] == [{}] * 4

    def test_a_part_that_is_not_used_keeps_its_weights(self, tmp_path: Path) -> None:
        trained: Any = run(tmp_path).student.module
        assert torch.equal(trained.unused.weight, net().module.unused.weight)  # type: ignore

    def test_the_callers_random_numbers_are_left_alone(self, tmp_path: Path) -> None:
        student, objective = net(), Towards(noise=0.1)
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        run(tmp_path, student=student, objective=objective)
        assert torch.equal(torch.rand(3), expected)

    def test_how_long_squared_gradients_count_decides_about_the_weights(self, tmp_path: Path) -> None:
        long, short = (
            run(tmp_path / str(beta2), replace(PLAN, beta2=beta2)).student for beta2 in (0.999, 0.5)
        )
        assert bytes_of(long) != bytes_of(short)

    def test_only_matrices_decay(self) -> None:
        module = torch.nn.ModuleDict(
            {
                "table": torch.nn.Embedding(5, 4),
                "matrix": torch.nn.Linear(4, 3),
                "tied": torch.nn.Linear(4, 5),
            }
        )
        module["tied"].weight = module["table"].weight
        module.register_parameter("cls_token", torch.nn.Parameter(torch.zeros(1, 1, 4)))
        extra = torch.nn.Parameter(torch.zeros(2, 2))
        decaying, kept = learner.parameter_groups(module, [*module.parameters(), extra], 0.1)
        assert [id(p) for p in decaying["params"]] == [id(module["matrix"].weight), id(extra)]
        assert decaying["weight_decay"] == 0.1
        assert kept["weight_decay"] == 0.0
        assert len(kept["params"]) == 4

    def test_batches_that_are_accumulated_are_one_larger_batch(self, tmp_path: Path) -> None:
        results = []
        for batch, accumulate in ((8, 1), (4, 2), (3, 3)):
            plan = replace(PLAN, batch=batch, accumulate=accumulate, evaluate_every=0)
            samples = SAMPLES if batch != 3 else SAMPLES[:8]  # one step of 8 that is divided into 3
            student = without_batch_norm()
            trained = run(tmp_path / f"{batch}", plan, student=student, samples=samples, objective=Towards())
            results.append(trained)
        eight, four, _ = results
        for one, other in zip(
            eight.student.module.parameters(), four.student.module.parameters(), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert eight.points[-1].losses == pytest.approx(four.points[-1].losses, rel=1e-4)
        together = run(
            tmp_path / "8 at once",
            replace(PLAN, batch=8, evaluate_every=0),
            student=without_batch_norm(),
            samples=SAMPLES[:8],
            objective=Towards(),
        )
        assert results[2].points[-1].losses == pytest.approx(together.points[-1].losses, rel=1e-4)

    def test_the_average_of_the_weights_is_evaluated_and_returned(self, tmp_path: Path) -> None:
        seen: list[bytes] = []

        def evaluate(model: TorchModel) -> dict[str, float]:
            seen.append(bytes_of(model))
            return {"closeness": float(len(seen))}

        averaged = run(tmp_path / "a", replace(PLAN, ema=0.9), evaluate=evaluate)
        assert bytes_of(averaged.student) == seen[-1]
        seen_before = len(seen)
        plain = run(tmp_path / "b", evaluate=evaluate)
        assert seen[0] == seen[seen_before]
        moved = [
            sum(
                float((p - q).square().sum())
                for p, q in zip(t.student.module.parameters(), net().module.parameters(), strict=True)
            )
            for t in (averaged, plain)
        ]
        assert 0 < moved[0] < moved[1]

    def test_bf16_learns_too(self, tmp_path: Path) -> None:
        plan = replace(PLAN, steps=100, precision="bf16", evaluate_every=0)
        trained = run(tmp_path, plan, objective=Towards())
        assert trained.points[-1].quality["closeness"] > trained.points[0].quality["closeness"] + 0.2
        assert {p.dtype for p in trained.student.module.parameters()} == {torch.float32}


class TestTheBest:
    def test_a_student_that_training_makes_worse_comes_back_as_it_was(self, tmp_path: Path) -> None:
        trained = run(tmp_path, replace(PLAN, learning_rate=50.0, clip_norm=0.0))
        assert trained.best_step == 0
        assert bytes_of(trained.student) == bytes_of(net())

    def test_patience_ends_it(self, tmp_path: Path) -> None:
        qualities = iter([0.1, 0.5, 0.5, 0.4, 0.9])
        plan = replace(PLAN, evaluate_every=1, patience=2)
        trained = run(tmp_path, plan, evaluate=lambda model: {"closeness": next(qualities)})
        assert (trained.best_step, trained.steps_run, trained.stopped_early) == (1, 3, True)
        again = run(tmp_path, plan, evaluate=lambda model: pytest.fail("it is over"))
        assert same(trained, again)

    def test_patience_does_not_ask_for_more_than_there_was_before_training(self, tmp_path: Path) -> None:
        qualities = iter([0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.45, 0.46, 0.95])
        plan = replace(PLAN, evaluate_every=1, patience=2)
        trained = run(tmp_path, plan, evaluate=lambda model: {"closeness": next(qualities)})
        assert (trained.best_step, trained.steps_run) == (0, 7)

    def test_where_something_else_is_asked_the_best_is_chosen_anew(self, tmp_path: Path) -> None:
        qualities = iter([0.1, 0.9, 0.8, 0.7, 0.3, 0.4, 0.35, 0.38, 0.95])
        plan = replace(PLAN, evaluate_every=1, patience=2, best_from=3)
        trained = run(tmp_path, plan, evaluate=lambda model: {"closeness": next(qualities)})
        assert (trained.best_step, trained.steps_run, trained.stopped_early) == (5, 7, True)

    def test_a_quality_that_is_no_number_is_never_the_best(self, tmp_path: Path) -> None:
        qualities = iter([float("nan"), 0.5, float("nan"), 0.4])
        trained = run(tmp_path, evaluate=lambda model: {"closeness": next(qualities)})
        assert trained.best_step == 4


class TestResume:
    @pytest.fixture(scope="class")
    def whole(self, tmp_path_factory: pytest.TempPathFactory) -> Trained:
        trained = run(tmp_path_factory.mktemp("whole"))
        assert trained.best_step == 12  # else the weights that are compared would be the given ones
        return trained

    def test_the_same_seed_gives_the_same_bytes(self, whole: Trained, tmp_path: Path) -> None:
        assert same(whole, run(tmp_path))
        other = run(tmp_path / "other", replace(PLAN, seed=4))
        assert bytes_of(other.student) != bytes_of(whole.student)

    @pytest.mark.parametrize("step", range(12))
    def test_killed_in_any_step_and_run_again_gives_the_same_bytes(
        self, whole: Trained, tmp_path: Path, step: int
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, objective=Interrupting(step))
        assert same(whole, run(tmp_path))

    @pytest.mark.parametrize("step", [0, 4, 8, 12])
    def test_killed_right_after_an_evaluation_gives_the_same_bytes(
        self, whole: Trained, tmp_path: Path, step: int
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, progress=killer(step, also="best"))
        assert same(whole, run(tmp_path))

    def test_killed_again_and_again(self, tmp_path: Path) -> None:
        plan = replace(PLAN, ema=0.8, accumulate=2, checkpoint_every=2, evaluate_every=3)
        whole = run(tmp_path / "whole", plan)
        for step in (3, 3, 7, 10):
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "parts", plan, objective=Interrupting(step))
        assert whole.best_step > 0
        assert same(whole, run(tmp_path / "parts", plan))

    def test_a_run_that_is_complete_is_not_run_again(self, whole: Trained, tmp_path: Path) -> None:
        run(tmp_path)
        again = run(tmp_path, objective=Interrupting(-1), evaluate=lambda model: pytest.fail("again"))
        assert same(whole, again)

    def test_checkpoints_may_be_written_more_often_when_it_goes_on(
        self, whole: Trained, tmp_path: Path
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, objective=Interrupting(7))
        assert same(whole, run(tmp_path, replace(PLAN, checkpoint_every=1)))

    def test_a_real_kill_leaves_no_trace(self, tmp_path: Path) -> None:
        script = (
            "import os, signal, sys\n"
            "from tests.distill.test_training import run, bytes_of\n"
            "from pathlib import Path\n"
            "def progress(stage, message, fraction=None):\n"
            "    if message.startswith('step 8 of') and sys.argv[2] == 'kill':\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "trained = run(Path(sys.argv[1]), progress=progress)\n"
            "Path(sys.argv[1], 'result').write_bytes(bytes_of(trained.student))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}

        def started(folder: Path, how: str) -> int:
            command = [sys.executable, "-c", script, str(folder), how]
            return subprocess.run(command, env=environment, cwd=ROOT, timeout=200).returncode

        assert started(tmp_path / "killed", "kill") == -signal.SIGKILL
        assert not (tmp_path / "killed" / "result").exists()
        assert started(tmp_path / "killed", "go on") == 0
        whole = run(tmp_path / "whole")
        assert (tmp_path / "killed" / "result").read_bytes() == bytes_of(whole.student)

    def test_a_tiny_bert_goes_on_exactly(self, tmp_path: Path) -> None:
        from tests.compress.families import tiny_transformer
        from tests.compress.samples import Arrays, samples_of

        student = replace(tiny_transformer("bert"), preprocessor=Arrays())
        samples = samples_of(student, 24)
        plan = replace(PLAN, steps=5, evaluate_every=2, checkpoint_every=2, learning_rate=1e-3)

        class Small(Interrupting):
            def __call__(self, outputs: Any, batch: Any, share_done: float) -> dict[str, torch.Tensor]:
                if round(share_done * plan.steps) == self.step:
                    raise KeyboardInterrupt
                return {"small": next(iter(outputs.values())).square().mean()}

        def evaluate(model: TorchModel) -> dict[str, float]:
            inputs = model.preprocessor.batch(samples[:8])
            outputs = model.module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
            return {"closeness": -float(next(iter(outputs.values())).square().mean())}

        def go(folder: Path, step: int) -> Trained:
            return run(
                folder, plan, student=student, samples=samples, objective=Small(step), evaluate=evaluate
            )

        whole = go(tmp_path / "whole", -1)
        assert whole.points[-1].quality["closeness"] > whole.points[0].quality["closeness"]
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "parts", 3)
        assert same(whole, go(tmp_path / "parts", -1))


@pytest.mark.slow
class TestOtherMachines:
    def test_two_processes_make_what_one_makes(self, tmp_path: Path) -> None:
        single = started([sys.executable], tmp_path / "one", "fp32")
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29541"]
        first = started(launch, tmp_path / "two", "fp32")
        second = torch.load(tmp_path / "two" / "result-1", weights_only=True)
        for name, value in single.items():
            torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)
            assert torch.equal(first[name], second[name])

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_a_gpu_learns_in_every_precision(self, tmp_path: Path, precision: str) -> None:
        weights = started([sys.executable], tmp_path / "gpu", precision, cpu="false")
        assert {value.device.type for value in weights.values()} == {"cpu"}
        student = without_batch_norm()
        before = error_of(HELD_OUT)(student)["closeness"]
        student.module.load_state_dict(weights)
        assert error_of(HELD_OUT)(student)["closeness"] > before + 0.1


def started(command: list[str], folder: Path, precision: str, cpu: str = "true") -> dict[str, torch.Tensor]:
    """Train in processes of their own and return the first one's weights."""
    script = folder.with_suffix(".py")
    script.write_text(
        "import os, sys, torch\n"
        "from tests.distill.test_training import *\n"
        f"os.environ['ACCELERATE_USE_CPU'] = '{cpu}'\n"
        f"plan = replace(PLAN, batch=5, accumulate=2, ema=0.5, precision='{precision}')\n"
        f"trained = run(Path({str(folder)!r}), plan, student=without_batch_norm(), objective=Towards())\n"
        f"result = Path({str(folder)!r}, 'result-' + os.environ.get('RANK', '0'))\n"
        "torch.save(trained.student.module.state_dict(), result)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(script)], env=environment, cwd=ROOT, timeout=200, check=True)
    return torch.load(folder / "result-0", weights_only=True)


class TestRefusals:
    def test_checkpoints_of_other_data_or_another_plan(self, tmp_path: Path) -> None:
        run(tmp_path, identity={"teacher": "mirror", "data": "aa"})
        with pytest.raises(DataError, match=r"data was aa, is bb; learning_rate was 0\.1, is 0\.5"):
            run(tmp_path, replace(PLAN, learning_rate=0.5), identity={"teacher": "mirror", "data": "bb"})

    def test_no_samples(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no samples"):
            run(tmp_path, samples=())

    def test_fp16_without_a_gpu(self, tmp_path: Path) -> None:
        with pytest.raises(MachineError, match="fp16 needs a CUDA GPU"):
            run(tmp_path, replace(PLAN, precision="fp16"))

    def test_single_samples_for_a_batch_norm(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="batch of 1"):
            run(tmp_path, replace(PLAN, batch=1))
        assert run(tmp_path, replace(PLAN, batch=1), student=without_batch_norm()).steps_run == 12

    def test_a_quality_that_is_not_measured(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="'closeness'") as caught:
            run(tmp_path, evaluate=lambda model: {"closenes": 1.0})
        assert "'closenes'" in caught.value.hint

    def test_accelerate_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "accelerate", None)
        with pytest.raises(MissingDependencyError, match="accelerate") as caught:
            run(tmp_path)
        assert "edgekit[distill]" in caught.value.hint

    @pytest.mark.parametrize("name", [checkpoint.LAST, checkpoint.BEST])
    def test_a_checkpoint_that_is_damaged_or_of_another_model(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, objective=Interrupting(7))
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content[:500])
        with pytest.raises(ModelError, match="damaged"):
            run(tmp_path)
        path.unlink()
        checkpoint.save(path, {"student": {"other": torch.zeros(2)}, "step": 9, "value": 9.0, "done": 9})
        with pytest.raises(ModelError, match="damaged") as caught:
            run(tmp_path)
        assert str(path) in caught.value.message

    def test_last_without_best(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, objective=Interrupting(7))
        (tmp_path / checkpoint.BEST).unlink()
        with pytest.raises(ModelError, match=r"best\.pt is damaged: it is missing"):
            run(tmp_path)

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(StorageError):
            run(tmp_path / "file" / "run")


class TestNotFinite:
    def test_a_loss_names_the_step_the_term_and_the_sample_and_keeps_the_best(self, tmp_path: Path) -> None:
        plan = replace(PLAN, steps=40)
        with pytest.raises(TrainingError) as caught:
            run(tmp_path, plan, objective=Towards(poison=11))
        error = caught.value
        assert "the loss 'seen' is nan" in error.message
        assert "11" in error.message.partition("(samples ")[2].partition(";")[0]
        assert "the first begins x [" in error.message
        assert str(tmp_path / checkpoint.BEST) in error.hint
        assert "lower learning rate" in error.hint
        best = checkpoint.load(tmp_path / checkpoint.BEST)
        assert best is not None
        assert all(bool(torch.isfinite(value).all()) for value in best["student"].values())

    def test_a_text_is_named_by_its_beginning(self) -> None:
        from edgekit.distill.protocol import Batch
        from edgekit.distill.tally import stopped

        def said(*values: Any) -> str:
            batch = Batch(tuple(range(len(values))), {}, tuple(map(Sample, values)))
            return stopped(3, "it broke", [batch], Path("best.pt"), "care").message

        assert "samples 0; the first begins 'Lorem ipsum')" in said("Lorem ipsum")
        assert "'" + "y" * 60 + "…'" in said("y" * 100)
        assert "'two words'" in said(["two", "words"])
        assert "'cat.png'" in said(Path("/data/cat.png"))
        assert "0, 1, 2, 3, 4, 5, 6, 7 and 2 more" in said(*"abcdefghij")

    def test_a_gradient_is_not_finite_though_the_loss_is(self, tmp_path: Path) -> None:
        class Root(Towards):
            def __call__(self, outputs: Any, batch: Any, share_done: float) -> dict[str, torch.Tensor]:
                return {"root": (outputs["out"] * 0).abs().sqrt().mean()}

        with pytest.raises(TrainingError, match="step 1: the norm of the gradient is nan"):
            run(tmp_path, objective=Root())


class TestProgress:
    def test_it_tells_the_step_the_loss_the_rate_and_the_time_left(self, tmp_path: Path) -> None:
        told: list[tuple[str, str, float | None]] = []
        run(tmp_path, progress=lambda *words: told.append(words))
        assert {stage for stage, _, _ in told} == {"distill"}
        messages = [message for _, message, _ in told]
        assert len(messages) < 12  # it takes no second
        evaluated = [(message, share) for _, message, share in told if "best" in message]
        assert [share for _, share in evaluated] == pytest.approx([0, 1 / 3, 2 / 3, 1])
        assert evaluated[0][0].startswith("step 0 of 12: closeness ")
        shares = [share for _, _, share in told]
        assert shares == sorted(shares)  # type: ignore[type-var]

    def test_steps_in_between_are_told_once_a_second(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = iter(np.arange(0, 1000, 0.4))
        monkeypatch.setattr("edgekit.distill.pace.time.perf_counter", lambda: float(next(now)))
        told: list[str] = []
        plan = replace(PLAN, steps=30, evaluate_every=0)
        run(tmp_path, plan, progress=lambda stage, message, share: told.append(message))
        steps = [message for message in told if "samples/s" in message]
        assert 5 <= len(steps) < 30
        assert all("loss " in message and " left" in message for message in steps)

    def test_going_on_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, objective=Interrupting(7))
        told: list[str] = []
        run(tmp_path, progress=lambda stage, message, share: told.append(message))
        assert told[0] == f"step 5 of 12: going on from {tmp_path}"
