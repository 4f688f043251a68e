"""Each loss is its formula, is 0 at the teacher, and stays finite with its gradients whatever it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.distill import losses
from edgekit.errors import ModelError, RecipeError

SEEDS = st.integers(0, 2**31)
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0, 4.0])


def _random(seed: int, *shape: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _softmax(logits: np.ndarray) -> np.ndarray:
    """In fp64, written apart from what is tested."""
    powers = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum(axis=-1).mean())


def _cosines(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def _top(logits: torch.Tensor, k: int, temperature: float) -> tuple[torch.Tensor, ...]:
    """The teacher's k largest log-probabilities, which they are, and the logarithm of the rest."""
    logs = torch.log_softmax(logits.double() / temperature, dim=1)
    values, indices = logs.topk(k, dim=1)
    rest = logs.scatter(1, indices, -torch.inf).logsumexp(dim=1)
    return values.float(), indices, rest.float()


def _top_loss(
    student: torch.Tensor, teacher: torch.Tensor, k: int, temperature: float, loss=losses.soft_top_k
) -> torch.Tensor:
    return loss(student, *_top(teacher, k, temperature), temperature)


WAYS = pytest.mark.parametrize(
    ("top_k", "whole"),
    [(losses.soft_top_k, losses.soft_labels), (losses.reverse_top_k, losses.reverse_kl)],
    ids=["forward", "reverse"],
)


MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
ANCHORS, APART = torch.eye(5, 6), torch.ones(1, 5, dtype=torch.bool)

PAIRS = {
    "soft_labels": lambda s, t: losses.soft_labels(s, t, 2.0),
    "soft_decisions": lambda s, t: losses.soft_decisions(s, t, 2.0),
    "soft_top_k": lambda s, t: _top_loss(s, t, 3, 2.0),
    "reverse_top_k": lambda s, t: _top_loss(s, t, 3, 2.0, losses.reverse_top_k),
    "reverse_kl": lambda s, t: losses.reverse_kl(s, t, 2.0),
    "cosine": losses.cosine,
    "similarity_distribution": lambda s, t: losses.similarity_distribution(s, t, 0.1),
    "anchor_distribution": lambda s, t: losses.anchor_distribution(s, t, ANCHORS, APART, 0.1),
    "hidden": losses.hidden,
    "relations": lambda s, t: losses.relations(s.view(2, 4, -1), t.view(2, 4, -1), MASK, 2),
}
"""Name -> loss of [8, 6] against [8, 6] that is 0 where the two are the same."""

EVERY = PAIRS | {
    "hard_labels": lambda s, t: losses.hard_labels(s, t.argmax(dim=1)),
    "hard_decisions": lambda s, t: losses.hard_decisions(s, (t > 0).long()),
    "contrastive": lambda s, t: losses.contrastive(s, t, 0.05),
}


@pytest.mark.parametrize("name", EVERY)
class TestEveryLoss:
    @given(seed=SEEDS, scale=st.sampled_from([1e-6, 1e-2, 1.0, 1e2, 1e4]))
    def test_is_finite_with_its_gradient_at_any_scale(self, name, seed, scale) -> None:
        student = _random(seed, 8, 6, scale=scale).requires_grad_()
        loss = EVERY[name](student, _random(seed + 1, 8, 6, scale=scale))
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert loss >= -1e-5

    @pytest.mark.parametrize("extreme", ["zeros", "certain and right", "certain and wrong", "one row"])
    def test_is_finite_with_its_gradient_at_the_edges(self, name, extreme) -> None:
        teacher, student = _random(1, 8, 6), _random(2, 8, 6)
        if extreme == "zeros":
            teacher, student = torch.zeros(8, 6), torch.zeros(8, 6)
        if extreme.startswith("certain"):
            teacher = torch.full((8, 6), -60_000.0).scatter(1, torch.arange(8)[:, None] % 6, 60_000.0)
            student = teacher if extreme.endswith("right") else -teacher
        if extreme == "one row" and name != "relations":
            teacher, student = teacher[:1], student[:1]
        student = student.clone().requires_grad_()
        loss = EVERY[name](student, teacher)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite()
        assert gradient.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_computes_in_fp32_what_comes_in_half_precision(self, name, dtype) -> None:
        student, teacher = _random(3, 8, 6).to(dtype), _random(4, 8, 6).to(dtype)
        plain = EVERY[name](student.float(), teacher.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert EVERY[name](student, teacher) == plain

    def test_gives_the_teacher_no_gradient(self, name) -> None:
        student, teacher = (_random(seed, 8, 6).requires_grad_() for seed in (5, 6))
        EVERY[name](student, teacher).backward()
        assert student.grad is not None
        assert student.grad.any()
        if name != "contrastive":  # both of its sides are the student's
            assert teacher.grad is None


@pytest.mark.parametrize("name", PAIRS)
class TestEveryDistance:
    @given(seed=SEEDS)
    def test_is_zero_and_flat_at_the_teacher_alone(self, name, seed) -> None:
        teacher = _random(seed, 8, 6)
        student = teacher.clone().requires_grad_()
        loss = PAIRS[name](student, teacher)
        loss.backward()
        assert student.grad is not None
        assert abs(loss.item()) < 1e-5
        assert student.grad.abs().max() < 1e-5
        assert PAIRS[name](_random(seed + 1, 8, 6), teacher) > 1e-4

    def test_is_its_own_mean_over_more_rows(self, name) -> None:
        if name == "similarity_distribution":
            return  # rows are compared with each other
        student, teacher = _random(7, 8, 6), _random(8, 8, 6)
        if name == "relations":
            texts = [torch.cat([x, x]).view(4, 4, 6) for x in (student, teacher)]
            both = losses.relations(texts[0], texts[1], torch.cat([MASK, MASK]), 2)
        else:
            both = PAIRS[name](torch.cat([student, student]), torch.cat([teacher, teacher]))
        torch.testing.assert_close(both, PAIRS[name](student, teacher))


class TestLogits:
    @given(seed=SEEDS, temperature=TEMPERATURES)
    def test_soft_labels_are_the_scaled_kl_of_the_probabilities(self, seed, temperature) -> None:
        student, teacher = _random(seed, 5, 7), _random(seed + 1, 5, 7)
        s, t = (_softmax(x.numpy() / temperature) for x in (student, teacher))
        loss = losses.soft_labels(student, teacher, temperature)
        assert float(loss) == pytest.approx(temperature**2 * _kl(t, s), rel=1e-4)
        loss = losses.reverse_kl(student, teacher, temperature)
        assert float(loss) == pytest.approx(temperature**2 * _kl(s, t), rel=1e-4)

    def test_the_gradient_keeps_its_size_when_the_temperature_rises(self) -> None:
        # at high T it tends to (s - t) / classes of centred logits: Hinton et al., equation 4
        student, teacher = _random(1, 5, 7), _random(2, 5, 7)
        student, teacher = (x - x.mean(dim=1, keepdim=True) for x in (student, teacher))
        student.requires_grad_()
        losses.soft_labels(student, teacher, 1000.0).backward()
        torch.testing.assert_close(student.grad, (student - teacher).detach() / 7 / 5, rtol=0.05, atol=2e-3)

    @given(seed=SEEDS, temperature=TEMPERATURES)
    def test_one_decision_is_a_choice_of_two_classes(self, seed, temperature) -> None:
        student, teacher = _random(seed, 5, 3), _random(seed + 1, 5, 3)
        two = [torch.stack([x.flatten(), torch.zeros(15)], dim=1) for x in (student, teacher)]
        torch.testing.assert_close(
            losses.soft_decisions(student, teacher, temperature),
            losses.soft_labels(*two, temperature),
            rtol=1e-4,
            atol=1e-6,
        )

    def test_hard_labels_leave_out_what_has_none(self) -> None:
        logits = _random(1, 4, 3).requires_grad_()
        labels = torch.tensor([2, -100, 0, -100])
        expected = -np.log(_softmax(logits.detach().numpy())[[0, 2], [2, 0]]).mean()
        loss = losses.hard_labels(logits, labels)
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        assert not logits.grad[[1, 3]].any()

    def test_hard_labels_are_zero_with_a_gradient_where_nothing_is_labelled(self) -> None:
        logits = _random(1, 4, 3).requires_grad_()
        loss = losses.hard_labels(logits, torch.full((4,), -100))
        loss.backward()
        assert loss.item() == 0
        assert not logits.grad.any()

    def test_hard_decisions_are_the_cross_entropy_of_each(self) -> None:
        logits, labels = _random(1, 4, 3), torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
        p = 1 / (1 + np.exp(-logits.double().numpy()))
        expected = -np.where(labels.numpy() == 1, np.log(p), np.log(1 - p)).mean()
        assert float(losses.hard_decisions(logits, labels)) == pytest.approx(expected, rel=1e-5)

    def test_one_class_is_not_stretched_over_many(self) -> None:
        with pytest.raises(ModelError, match="the student gives 4×1 where the teacher gives 4×3"):
            losses.soft_labels(torch.zeros(4, 1), torch.zeros(4, 3), 1.0)


class TestTopK:
    @WAYS
    @given(seed=SEEDS, temperature=TEMPERATURES)
    def test_all_tokens_are_the_whole_distribution(self, top_k, whole, seed, temperature) -> None:
        student, teacher = _random(seed, 5, 7).requires_grad_(), _random(seed + 1, 5, 7)
        wanted = whole(student, teacher, temperature)
        top = _top_loss(student, teacher, 7, temperature, top_k)
        torch.testing.assert_close(top, wanted, rtol=1e-4, atol=1e-5)
        ours, theirs = (torch.autograd.grad(loss, student)[0] for loss in (top, wanted))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)

    @WAYS
    @given(seed=SEEDS, k=st.integers(1, 8))
    def test_some_tokens_are_the_kl_of_buckets_which_is_never_more(self, top_k, whole, seed, k) -> None:
        student, teacher = _random(seed, 5, 9), _random(seed + 1, 5, 9)
        s, t = (_softmax(x.numpy()) for x in (student, teacher))
        order = np.argsort(-t, axis=1)
        s, t = (np.take_along_axis(x, order, axis=1) for x in (s, t))
        s, t = (np.concatenate([x[:, :k], x[:, k:].sum(axis=1, keepdims=True)], axis=1) for x in (s, t))
        loss = float(_top_loss(student, teacher, k, 1.0, top_k))
        expected = _kl(t, s) if top_k is losses.soft_top_k else _kl(s, t)
        assert loss == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert loss <= float(whole(student, teacher, 1.0)) + 1e-5

    def test_only_the_reverse_minds_what_the_teacher_deems_unlikely_more_than_what_is_left_out(self) -> None:
        teacher = torch.tensor([[4.0, 4.0, -4.0, -4.0]])
        one_of_two, unlikely_too = (
            torch.tensor([[6.0, 0.0, -4.0, -4.0]]),
            torch.tensor([[4.0, 4.0, 3.5, -4.0]]),
        )
        forward, reverse = (
            [float(_top_loss(student, teacher, 2, 1.0, loss)) for student in (one_of_two, unlikely_too)]
            for loss in (losses.soft_top_k, losses.reverse_top_k)
        )
        assert forward[0] > forward[1]
        assert reverse[0] < reverse[1]

    @WAYS
    def test_what_was_rounded_to_fp16_is_still_zero_at_best_and_never_below(self, top_k, whole) -> None:
        teacher = _random(1, 64, 50)
        values, indices, rest = _top(teacher, 10, 1.0)
        rounded = (values.half().float(), indices, rest.half().float())
        assert abs(float(top_k(teacher, *rounded, 1.0))) < 1e-5
        best = teacher.clone().requires_grad_()
        optimizer = torch.optim.Adam([best], lr=0.01)
        for _ in range(50):
            optimizer.zero_grad()
            loss = top_k(best, *rounded, 1.0)
            loss.backward()
            optimizer.step()
            assert float(loss) > -1e-6

    @WAYS
    def test_tokens_that_the_student_lacks_are_left_out_of_both(self, top_k, whole) -> None:
        student, teacher = _random(1, 5, 9), _random(2, 5, 9)
        kept = [0, 2, 3, 5, 6, 8]  # of the teacher's tokens; the student has these alone
        values, indices, rest = _top(teacher, 9, 1.0)
        place = torch.full((9,), -1).scatter(0, torch.tensor(kept), torch.arange(6))[indices]
        values = values.masked_fill(place < 0, -torch.inf)
        logits = student[:, :6].clone().requires_grad_()
        loss = top_k(logits, values, place.clamp_min(0), rest, 1.0)
        torch.testing.assert_close(loss, whole(logits, teacher[:, kept], 1.0), rtol=1e-4, atol=1e-5)
        loss.backward()
        assert logits.grad.isfinite().all()

    @WAYS
    def test_a_token_that_is_lacking_takes_none_from_the_rest(self, top_k, whole) -> None:
        logits = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
        lacking = torch.tensor([[-0.5, -torch.inf]]), torch.tensor([[2, 0]]), torch.tensor([-1.2])
        alone = torch.tensor([[-0.5]]), torch.tensor([[2]]), torch.tensor([-1.2])
        assert top_k(logits, *lacking, 1.0) == top_k(logits, *alone, 1.0)

    @WAYS
    def test_a_rest_where_no_token_is_left_counts_nothing(self, top_k, whole) -> None:
        logits = _random(1, 5, 4).requires_grad_()
        values, indices, _ = _top(_random(2, 5, 4), 4, 1.0)
        loss = top_k(logits, values, indices, torch.full((5,), -15.0), 1.0)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


class TestEmbeddings:
    def test_cosine_is_one_less_the_cosine_and_knows_no_length(self) -> None:
        student, teacher = _random(1, 5, 4), _random(2, 5, 4)
        s, t = student.double().numpy(), teacher.double().numpy()
        expected = 1 - ((s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)).mean()
        assert float(losses.cosine(student, teacher)) == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(losses.cosine(7 * student, teacher), losses.cosine(student, teacher))
        assert float(losses.cosine(-teacher, teacher)) == pytest.approx(2)

    @given(seed=SEEDS, temperature=st.sampled_from([0.05, 0.2, 1.0]))
    def test_similarity_is_the_kl_of_the_rows_without_themselves(self, seed, temperature) -> None:
        student, teacher = _random(seed, 6, 3), _random(seed + 1, 6, 8)
        gaps = []
        own, theirs = _cosines(student.numpy()) / temperature, _cosines(teacher.numpy()) / temperature
        for row in range(6):
            p, q = (_softmax(np.delete(x[row], row)) for x in (theirs, own))
            gaps.append(_kl(p, q))
        loss = losses.similarity_distribution(student, teacher, temperature)
        assert float(loss) == pytest.approx(np.mean(gaps), rel=1e-3, abs=1e-5)

    @given(seed=SEEDS)
    def test_similarity_does_not_see_a_rotation(self, seed) -> None:
        teacher = _random(seed, 6, 4)
        rotation, _ = torch.linalg.qr(_random(seed + 1, 4, 4))
        assert abs(float(losses.similarity_distribution(teacher @ rotation, teacher, 0.1))) < 1e-5

    def test_similarity_of_batches_that_are_not_the_same_is_refused(self) -> None:
        with pytest.raises(ModelError, match="3 rows of the student stand beside 4 of the teacher"):
            losses.similarity_distribution(torch.ones(3, 2), torch.ones(4, 2), 1.0)

    @given(seed=SEEDS, temperature=TEMPERATURES)
    def test_anchors_are_the_kl_of_the_similarities_to_others(self, seed, temperature) -> None:
        student, teacher, anchors = (_random(seed + n, 3, 4) for n in range(3))
        scores = [
            _cosines(torch.cat([rows, anchors]).numpy())[:3, 3:] / temperature for rows in (teacher, student)
        ]
        p, q = (_softmax(rows[:, 1:]) for rows in scores)
        apart = torch.tensor([[False, True, True]] * 3)
        loss = losses.anchor_distribution(student, teacher, anchors, apart, temperature)
        assert float(loss) == pytest.approx(_kl(p, q), rel=1e-3, abs=1e-5)

    def test_contrastive_is_the_choice_of_the_own_row_both_ways(self) -> None:
        queries, answers = _random(1, 5, 4), _random(2, 5, 4)
        both = _cosines(torch.cat([queries, answers]).numpy())[:5, 5:] / 0.2
        expected = -np.log([np.diag(_softmax(both)), np.diag(_softmax(both.T))]).mean()
        loss = losses.contrastive(queries, answers, 0.2)
        assert float(loss) == pytest.approx(expected, rel=1e-4)
        torch.testing.assert_close(loss, losses.contrastive(answers, queries, 0.2))

    def test_contrastive_of_pairs_that_fit_is_less_than_of_pairs_that_do_not(self) -> None:
        rows = _random(1, 5, 4)
        assert losses.contrastive(rows, rows, 0.05) < losses.contrastive(rows, rows.roll(1, 0), 0.05)


class TestLayers:
    @given(seed=SEEDS, scale=st.sampled_from([1e-2, 1.0, 50.0]))
    def test_hidden_has_no_unit(self, seed, scale) -> None:
        student, teacher = _random(seed, 6, 4), _random(seed + 1, 6, 4)
        s, t = student.double().numpy(), teacher.double().numpy()
        loss = losses.hidden(scale * student, scale * teacher)
        assert float(loss) == pytest.approx(np.square(s - t).mean() / np.square(t).mean(), rel=1e-4)

    def test_hidden_of_zeros_is_one(self) -> None:
        assert float(losses.hidden(torch.zeros(5, 3), _random(1, 5, 3))) == pytest.approx(1)

    def test_hidden_of_no_tokens_is_zero(self) -> None:
        student = torch.zeros(0, 3, requires_grad=True)
        losses.hidden(student, torch.zeros(0, 3)).backward()
        assert student.grad is not None

    def test_relations_are_the_kl_of_attention_between_real_tokens(self) -> None:
        student, teacher = _random(1, 2, 4, 6, scale=1.0), _random(2, 2, 4, 8, scale=1.0)
        gaps = []
        for text, length in ((0, 4), (1, 2)):
            for head in range(2):
                own = student[text, :length, 3 * head : 3 * head + 3].double().numpy()
                theirs = teacher[text, :length, 4 * head : 4 * head + 4].double().numpy()
                p, q = _softmax(theirs @ theirs.T / 2), _softmax(own @ own.T / np.sqrt(3))
                gaps += (p * np.log(p / q)).sum(axis=1).tolist()
        loss = losses.relations(student, teacher, MASK, 2)
        assert float(loss) == pytest.approx(np.mean(gaps), rel=1e-4)

    def test_relations_do_not_see_padding(self) -> None:
        student, teacher = _random(1, 2, 4, 6), _random(2, 2, 4, 6)
        loss = losses.relations(student, teacher, MASK, 3)
        student[1, 2:], teacher[1, 2:] = 1e3, -1e3
        assert losses.relations(student, teacher, MASK, 3) == loss
        assert losses.relations(student, teacher, None, 3) != loss

    def test_relations_of_a_text_that_is_all_padding_are_finite(self) -> None:
        student = _random(1, 2, 4, 6).requires_grad_()
        loss = losses.relations(student, _random(2, 2, 4, 6), torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]), 2)
        loss.backward()
        assert loss.isfinite()
        assert student.grad is not None
        assert student.grad[0].any()
        assert not student.grad[1].any()

    def test_relations_say_which_width_cannot_be_split(self) -> None:
        with pytest.raises(RecipeError, match="a width of 6 cannot be split into 4 heads"):
            losses.relations(torch.zeros(1, 2, 6), torch.zeros(1, 2, 8), None, 4)

    def test_relations_of_other_tokens_are_refused(self) -> None:
        with pytest.raises(ModelError, match="the student's tokens 1×3 are not the teacher's 1×2"):
            losses.relations(torch.zeros(1, 3, 8), torch.zeros(1, 2, 8), None, 4)
