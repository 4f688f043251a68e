"""How far a student is from its teacher, one number to minimise: pure functions of tensors.

All compute in fp32, whatever they are given, and return a scalar: the mean over rows. KL is in nats. The
teacher's side carries no gradient.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch.nn import functional

from edgekit.errors import ModelError, RecipeError
from edgekit.tasks.samples import IGNORED

_LEAST_NORM = 1e-6
"""A vector shorter than this has no direction worth a gradient."""


def soft_labels(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(softmax(t/T) ‖ softmax(s/T)): logits [rows, classes] both → scalar.

    T² keeps the size of the gradients the same for every temperature.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.

    Raises:
        ModelError: The two differ in shape.
    """
    student, teacher = _alike(student, teacher)
    gap = _kl(_log_softmax(teacher, temperature), _log_softmax(student, temperature))
    return temperature**2 * _mean(gap)


def soft_decisions(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(σ(t/T) ‖ σ(s/T)) of each label by itself: logits [rows, labels] both → scalar, their mean.

    Source: Yang et al. 2023, arXiv:2308.06453 (one decision against the rest for each label); the
    temperature is Hinton's.

    Raises:
        ModelError: The two differ in shape.
    """
    student, teacher = (logits / temperature for logits in _alike(student, teacher))
    both = (
        torch.stack([functional.logsigmoid(x), functional.logsigmoid(-x)], -1) for x in (teacher, student)
    )
    return temperature**2 * _mean(_kl(*both))


def hard_labels(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log softmax(s)[label]: logits [rows, classes] and labels int64 [rows] → scalar.

    Rows whose label is -100 are left out; where all are, the loss is 0.
    """
    total = functional.cross_entropy(student.float(), labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp_min(1)


def hard_decisions(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-y·log σ(s) - (1-y)·log σ(-s): logits [rows, labels] and 0 or 1 for each → scalar, the mean of all.

    Raises:
        ModelError: The two differ in shape.
    """
    student, labels = _alike(student, labels)
    return _mean(functional.binary_cross_entropy_with_logits(student, labels, reduction="none"))


def soft_top_k(
    student: torch.Tensor,
    values: torch.Tensor,
    indices: torch.Tensor,
    log_rest: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """T² · KL over k + 1 buckets: the k tokens that are known of the teacher, and all others together.

    The student's bucket of the others is the sum of their probabilities. Leaving the others out instead would
    make the student more certain than its teacher (Anshumann et al. 2025, arXiv:2503.16870). With k = classes
    this is `soft_labels`.

    Args:
        student: Logits [rows, classes].
        values: [rows, k], the teacher's log-probabilities at that temperature; -inf for one that the student
            does not have. What is left of the teacher is scaled to sum to 1.
        indices: [rows, k], which classes they are of; any class where the value is -inf.
        log_rest: [rows], logarithm of the others' probability; -inf where there are none.
        temperature: T.
    """
    own, theirs = _in_buckets(student, values, indices, log_rest, temperature)
    return temperature**2 * _mean(_kl(theirs, own))


def reverse_top_k(
    student: torch.Tensor,
    values: torch.Tensor,
    indices: torch.Tensor,
    log_rest: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """T² · KL over the buckets of `soft_top_k` the other way round, student ‖ teacher.

    Sums of probabilities lose some of what tells two distributions apart: it is at most `reverse_kl`, and the
    same with k = classes. What the student does among the others goes unseen, how much it gives them all does
    not.

    Source: as `reverse_kl`; that it is at most that is the log sum inequality (Cover and Thomas 2006,
    Elements of Information Theory, theorem 2.7.1).

    Args:
        student: Logits [rows, classes].
        values: As in `soft_top_k`, and likewise the rest.
        indices: [rows, k].
        log_rest: [rows].
        temperature: T.
    """
    own, theirs = _in_buckets(student, values, indices, log_rest, temperature)
    return temperature**2 * _mean(_kl(own, theirs))


def _in_buckets(
    student: torch.Tensor,
    values: torch.Tensor,
    indices: torch.Tensor,
    log_rest: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities of the k tokens and of all others: [rows, k + 1], student's and teacher's."""
    logits = student.float() / temperature
    known = values > -torch.inf
    rows, classes = logits.shape
    taken = torch.zeros(rows, classes + 1, dtype=torch.bool, device=logits.device)
    taken = taken.scatter(1, indices.masked_fill(~known, classes), True)[:, :classes]
    others = torch.logsumexp(logits.masked_fill(taken, -torch.inf), dim=1, keepdim=True)
    chosen = logits.gather(1, indices).masked_fill(~known, -torch.inf)
    rest = log_rest.float().masked_fill(taken.all(dim=1), -torch.inf)
    theirs = torch.cat([values.float(), rest[:, None]], dim=1).detach()
    return _log_softmax(torch.cat([chosen, others], dim=1)), _log_softmax(theirs)


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(softmax(s/T) ‖ softmax(t/T)): logits [rows, classes] both → scalar.

    The student pays for what the teacher deems unlikely, and not for what it leaves out.

    Source: Gu et al. 2024, arXiv:2306.08543 (MiniLLM); here per position, as in Agarwal et al. 2024,
    arXiv:2306.13649 (GKD).

    Raises:
        ModelError: The two differ in shape.
    """
    student, teacher = _alike(student, teacher)
    gap = _kl(_log_softmax(student, temperature), _log_softmax(teacher, temperature))
    return temperature**2 * _mean(gap)


def cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - cos(s, t): [rows, dim] both → scalar, between 0 and 2.

    Source: Sanh et al. 2019, arXiv:1910.01108 (DistilBERT), there of hidden states.

    Raises:
        ModelError: The two differ in shape.
    """
    student, teacher = _alike(student, teacher)
    return _mean(1 - (_unit(student) * _unit(teacher)).sum(dim=-1))


def similarity_distribution(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(P ‖ Q), P and Q the softmax over j ≠ i of cos(xᵢ, xⱼ)/T: [rows, dim] each → scalar.

    How similar each row is to the others of the batch; only the number of rows must be the same. A row alone
    has no others: 0.

    Source: Koohpayegani et al. 2020, arXiv:2010.14713 (CompRess), and Fang et al. 2021, arXiv:2101.04731
    (SEED), which compare with a queue of earlier rows; here the batch stands for the queue.

    Raises:
        ModelError: The two differ in the number of rows.
    """
    if len(student) != len(teacher):
        raise ModelError(f"{len(student)} rows of the student stand beside {len(teacher)} of the teacher")
    if len(student) < 2:
        return _mean(student.float()[:0])
    with _exactly(student):
        own, theirs = (_off_diagonal(_cosines(x.float(), x.float())) for x in (student, teacher.detach()))
    return _mean(_kl(_log_softmax(theirs, temperature), _log_softmax(own, temperature)))


def anchor_distribution(
    student: torch.Tensor,
    teacher: torch.Tensor,
    anchors: torch.Tensor,
    apart: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """KL(P ‖ Q), P and Q the softmax over the anchors a of cos(t, a)/T and cos(s, a)/T: → scalar.

    How similar each row is to vectors that the teacher gave for other samples. They are many more than a
    batch has, so that near ones are among them, and cost no forward.

    Source: Koohpayegani et al. 2020, arXiv:2010.14713 (CompRess), section 3.1, the variant in which the
    student's similarities are to the teacher's anchors; there they are the latest of a queue.

    Args:
        student: [rows, dim].
        teacher: [rows, dim], of the same samples.
        anchors: [anchors, dim], the teacher's.
        apart: bool [rows, anchors], False where the anchor is the row's own sample.
        temperature: T.

    Raises:
        ModelError: The two differ in shape.
    """
    student, teacher = _alike(student, teacher)
    with _exactly(student):
        theirs, own = (_cosines(rows, anchors.float()) / temperature for rows in (teacher, student))
    least = torch.finfo(own.dtype).min
    theirs, own = (_log_softmax(scores.masked_fill(~apart, least)) for scores in (theirs, own))
    return _mean(_kl(theirs, own))


def contrastive(queries: torch.Tensor, answers: torch.Tensor, temperature: float) -> torch.Tensor:
    """-log softmaxⱼ(cos(qᵢ, aⱼ)/T)[i], and the same the other way, halved: [rows, dim] both → scalar.

    Row i belongs to row i; the other rows of the batch are what it must be told from.

    Source: van den Oord et al. 2018, arXiv:1807.03748 (InfoNCE); both ways as in Radford et al. 2021,
    arXiv:2103.00020 (CLIP), figure 3.
    """
    with _exactly(queries):
        logits = _cosines(queries.float(), answers.float()) / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (hard_labels(logits, own) + hard_labels(logits.T, own)) / 2


def hidden(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """mean (s - t)² / mean t²: [tokens, dim] both → scalar; 0 is the teacher, 1 is as good as zeros.

    Source: Jiao et al. 2020, arXiv:1909.10351 (TinyBERT), without the division: with it the loss
    has no unit, so that layers and models of any scale take the same weight.

    Raises:
        ModelError: The two differ in shape.
    """
    student, teacher = _alike(student, teacher)
    scale = teacher.square().mean() if len(teacher) else teacher.new_ones(())
    return _mean((student - teacher).square().mean(dim=-1)) / scale.clamp_min(_LEAST_NORM**2)


def relations(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None, heads: int
) -> torch.Tensor:
    """KL(softmax(T·Tᵀ/√dₜ) ‖ softmax(S·Sᵀ/√dₛ)) of each head: [batch, sequence, dim] each → scalar.

    S and T are queries, keys or values, split anew into `heads` relation heads of widths dₛ and dₜ, which
    need be neither the same nor those of attention. Mean over real tokens and heads.

    Source: Wang et al. 2021, arXiv:2012.15828 (MiniLMv2).

    Args:
        student: The student's.
        teacher: The teacher's, of the same tokens.
        mask: [batch, sequence], 0 for padding; None where there is none.
        heads: Relation heads; both widths are multiples of it.

    Raises:
        ModelError: The two are of different tokens.
        RecipeError: A width is no multiple of `heads`.
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ModelError(
            f"the student's tokens {_shape(student[..., 0])} are not the teacher's {_shape(teacher[..., 0])}"
        )
    real = torch.ones(student.shape[:2], device=student.device) if mask is None else mask
    real = real.to(student.device).bool()
    with _exactly(student):
        own, theirs = (_relations(x, real, heads) for x in (student, teacher.detach()))
    return _mean(_kl(theirs, own).mean(dim=1)[real])


def _relations(states: torch.Tensor, real: torch.Tensor, heads: int) -> torch.Tensor:
    """[batch, sequence, dim] → log-probabilities [batch, heads, sequence, sequence], none for padding."""
    batch, sequence, dim = states.shape
    if dim % heads:
        raise RecipeError(
            f"[distill] losses.relation_heads: a width of {dim} cannot be split into {heads} heads",
            f"A number that both models' projections can be split into divides {dim}.",
        )
    split = states.float().reshape(batch, sequence, heads, dim // heads).transpose(1, 2)
    scores = split @ split.transpose(2, 3) / (dim // heads) ** 0.5
    # the least number and not -inf, which makes NaN of a text that is all padding
    return _log_softmax(scores.masked_fill(~real[:, None, None, :], torch.finfo(scores.dtype).min))


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Σ p·(log p - log q) over the last axis; what has p = 0 counts nothing and gets no gradient."""
    p = log_p.exp()
    some = p > 0
    zero = torch.zeros((), device=p.device)
    return (torch.where(some, p, zero) * torch.where(some, log_p - log_q, zero)).sum(dim=-1)


def _log_softmax(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    return functional.log_softmax(logits / temperature, dim=-1)


def _cosines(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[n, dim] and [m, dim] → [n, m]."""
    return _unit(left) @ _unit(right).T


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return functional.normalize(rows, dim=-1, eps=_LEAST_NORM)


def _off_diagonal(square: torch.Tensor) -> torch.Tensor:
    """[n, n] → [n, n - 1] without its diagonal."""
    n = len(square)
    return square.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


def _mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean; 0 with a gradient of 0 where there are none."""
    return values.sum() / max(values.numel(), 1)


def _alike(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both in fp32, the teacher's without its gradient; torch would stretch one to fit the other."""
    if student.shape != teacher.shape:
        raise ModelError(f"the student gives {_shape(student)} where the teacher gives {_shape(teacher)}")
    return student.float(), teacher.detach().float()


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape)


def _exactly(tensor: torch.Tensor) -> AbstractContextManager[None]:
    """Keep autocast from computing matrix products with fewer digits."""
    return torch.autocast(tensor.device.type, enabled=False)
