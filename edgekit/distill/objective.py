"""What a step minimises: weighted losses on the teacher's outputs and, early on, on its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from edgekit.compress.anatomy import layer_list
from edgekit.compress.feeding import fed
from edgekit.data import Sample
from edgekit.distill import losses
from edgekit.distill.cache import Targets, TeacherCache, Wanted
from edgekit.distill.matching import Projections, layer_map, watched
from edgekit.distill.training import Batch
from edgekit.distill.weights import ON_LAYERS
from edgekit.distill.writing import prompts, written
from edgekit.distillation import LossOptions
from edgekit.model import TorchModel
from edgekit.tasks.samples import IGNORED
from edgekit.tasks.text import columns_kept


def wanted_outputs(task: str, options: LossOptions) -> Wanted:
    """Return in which form the teacher's outputs are kept."""
    if task == "text-generation":
        return Wanted(top=options.top, temperature=options.temperature)
    return Wanted()


class Objective:
    """The losses of a batch.

    Where the student's tokenizer keeps fewer tokens than the teacher's, whatever is compared by position is
    compared for the texts that both cut alike.

    Args:
        teacher: Runs along while the layers count, and for texts that the student writes.
        cache: Its outputs, by index of the sample.
        student: Only its sizes and preprocessor are looked at.
        weights: What each loss counts, see `edgekit.distill.weights.weights_of`.
        options: Temperatures and the rest.
        kept: Which of the teacher's layers the student's were; None where it was made otherwise.
        seed: Of the projections between widths.
    """

    def __init__(
        self,
        teacher: TorchModel,
        cache: TeacherCache,
        student: TorchModel,
        weights: Mapping[str, float],
        options: LossOptions,
        kept: Sequence[int] | None,
        seed: int,
    ) -> None:
        self._teacher, self._cache, self._student = teacher, cache, student
        self._weights, self._options = dict(weights), options
        columns = columns_kept(teacher.preprocessor, student.preprocessor)
        self._columns = self._place = None
        if columns is not None:
            self._columns = torch.tensor(columns)
            tokenizer: Any = getattr(teacher.preprocessor, "tokenizer")  # noqa: B009  only texts have columns
            self._place = torch.full((tokenizer.get_vocab_size(),), -1)
            self._place[self._columns] = torch.arange(len(columns))
        self._layers: tuple[int, ...] = ()
        self._projections: nn.Module = nn.Module()
        self._seen: Any = None
        if any(name in weights for name in ON_LAYERS):
            mine, theirs = (len(layer_list(model)[1]) for model in (student, teacher))
            self._layers = layer_map(mine, theirs, kept)
            widths = [(_stream_width(student), _stream_width(teacher))] * len(self._layers)
            self._projections = Projections(widths, seed=seed)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield what is trained along with the student and thrown away."""
        return self._projections.parameters()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return self._projections.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of an interrupted training."""
        self._projections.load_state_dict(state)

    @contextmanager
    def watching(self, student: TorchModel) -> Iterator[None]:
        """Look at the layers of the copy that learns, and of the teacher, while the block lasts."""
        device = next(student.module.parameters()).device
        self._projections.to(device)
        self._student = student
        with ExitStack() as stack:
            if self._layers or self._options.on_policy:
                self._teacher.module.to(device)
            if self._layers:
                what = {name: name in self._weights for name in ON_LAYERS}
                mine = stack.enter_context(watched(student, range(len(self._layers)), **what))
                theirs = stack.enter_context(watched(self._teacher, sorted(set(self._layers)), **what))
                self._seen = (mine, theirs)
            try:
                yield
            finally:
                self._seen = None
                self._teacher.module.to("cpu")

    def given(self, batch: Batch) -> Batch:
        """Return the batch, or in the share that is asked for one that the student wrote."""
        if not self._options.on_policy or float(torch.rand(())) >= self._options.on_policy:
            return batch
        begun = prompts(batch.inputs)
        inputs = written(self._student, begun, batch.inputs["input_ids"].shape[1])
        return replace(batch, inputs=inputs, prompt_tokens=begun.shape[1])

    def __call__(
        self, outputs: Mapping[str, torch.Tensor], batch: Batch, share_done: float
    ) -> dict[str, torch.Tensor]:
        """Return the weighted losses of a batch by name; their sum is what is minimised.

        Args:
            outputs: Of the student.
            batch: What it was given.
            share_done: Part of the training that is over, 0 to 1.
        """
        first = next(iter(outputs.values()))
        found: dict[str, torch.Tensor] = {}
        if batch.prompt_tokens:
            found = self._on_own_texts(first, batch)
            return {name: self._weights[name] * value for name, value in found.items()}
        fading = 1 - share_done / self._options.layers_until
        if self._seen and fading > 0:  # before another forward overwrites what was seen
            found |= {name: fading * value for name, value in self._on_layers(batch, first.device).items()}
        found |= self._on_outputs(first, self._cache.rows(batch.indices), batch, self._rising(share_done))
        return {name: self._weights[name] * value for name, value in found.items()}

    def _on_outputs(
        self, first: torch.Tensor, targets: Targets, batch: Batch, rising: float
    ) -> dict[str, torch.Tensor]:
        options, wanted, device = self._options, self._weights, first.device
        found: dict[str, torch.Tensor] = {}
        if self._teacher.task == "text-generation":
            return self._on_next_tokens(first, targets, batch)
        alike = self._alike(batch, targets)
        own = _real(first, batch.inputs, alike)
        theirs = targets.values[alike.repeat_interleave(targets.counts)].to(device)
        if "cosine" in wanted:
            found["cosine"] = losses.cosine(own, theirs)
        if "similarity" in wanted and rising:
            loss = losses.similarity_distribution(own, theirs, options.similarity_temperature)
            found["similarity"] = rising * loss
        if "anchors" in wanted and rising:
            found["anchors"] = rising * self._on_anchors(own, theirs, batch, alike)
        if "soft" in wanted:
            many = self._teacher.task.startswith("multi-label")
            soft = losses.soft_decisions if many else losses.soft_labels
            found["soft"] = soft(own, theirs, options.temperature)
        if "reverse" in wanted:
            found["reverse"] = losses.reverse_kl(own, theirs, options.temperature)
        if "hard" in wanted:
            inputs = {name: tensor.numpy() for name, tensor in batch.inputs.items()}
            labels = self._student.preprocessor.labels(batch.samples, inputs)
            flat = torch.as_tensor(labels).reshape(-1).to(device)
            found["hard"] = losses.hard_labels(first.reshape(len(flat), -1), flat)
        if "contrastive" in wanted:
            pairs = fed(self._student, [Sample(sample.label) for sample in batch.samples])
            answers = self._student.module(**{name: tensor.to(device) for name, tensor in pairs.items()})
            found["contrastive"] = losses.contrastive(
                first, next(iter(answers.values())), options.contrastive_temperature
            )
        return found

    def _rising(self, share_done: float) -> float:
        """Return how much of their weight the losses that compare texts have by now."""
        begin = self._options.comparisons_from
        return 1.0 if begin is None else max(share_done - begin, 0.0) / (1 - begin)

    def _on_anchors(
        self, own: torch.Tensor, theirs: torch.Tensor, batch: Batch, alike: torch.Tensor
    ) -> torch.Tensor:
        """Return how differently student and teacher place texts among vectors that the teacher gave."""
        drawn = torch.randint(len(self._cache), (min(self._options.anchor_samples, len(self._cache)),))
        anchors = self._cache.rows(drawn.tolist()).values.to(own.device)
        apart = torch.tensor(batch.indices)[alike, None] != drawn
        temperature = self._options.similarity_temperature
        return losses.anchor_distribution(own, theirs, anchors, apart.to(own.device), temperature)

    def _on_next_tokens(self, first: torch.Tensor, targets: Targets, batch: Batch) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        by_name = {"soft": losses.soft_top_k, "reverse": losses.reverse_top_k}
        if any(name in self._weights for name in by_name):
            alike = self._alike(batch, targets)
            rows = self._most_likely(targets, alike.repeat_interleave(targets.counts))
            values, indices, log_rest = (table.to(first.device) for table in rows)
            own, at = _real(first, batch.inputs, alike), self._options.temperature
            for name, loss in by_name.items():
                if name in self._weights:
                    found[name] = loss(own, values, indices, log_rest, at)
        if "hard" in self._weights:
            ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
            following = torch.where(mask[:, 1:] & mask[:, :-1], ids[:, 1:], IGNORED)
            logits = first[:, :-1].reshape(-1, first.shape[-1])
            found["hard"] = losses.hard_labels(logits, following.reshape(-1).to(first.device))
        return found

    def _on_own_texts(self, first: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """Return what the teacher says of the tokens that the student wrote, by all of its probabilities."""
        inputs = dict(batch.inputs)
        real = inputs["attention_mask"].bool()
        real[:, : batch.prompt_tokens - 1] = False  # the last token of the prompt has the first one written
        if self._columns is not None:
            inputs["input_ids"] = self._columns[inputs["input_ids"]]
        with torch.no_grad():
            returned = self._teacher.module(**{name: x.to(first.device) for name, x in inputs.items()})
        theirs = next(iter(returned.values())) if isinstance(returned, Mapping) else returned[0]
        if self._columns is not None:
            theirs = theirs[..., self._columns.to(first.device)]
        real = real.to(first.device)
        by_name = {"soft": losses.soft_labels, "reverse": losses.reverse_kl}
        return {
            name: loss(first[real], theirs[real], self._options.temperature)
            for name, loss in by_name.items()
            if name in self._weights
        }

    def _most_likely(
        self, targets: Targets, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the teacher's most likely tokens [rows, k] by the student's indices, and log of the rest.

        A token that a trimmed vocabulary lacks has no probability; the loss norms what is left.
        """
        assert targets.indices is not None and targets.log_rest is not None
        values, indices, log_rest = targets.values[rows], targets.indices[rows], targets.log_rest[rows]
        if self._place is None:
            return values, indices, log_rest
        places = self._place[indices]
        return values.masked_fill(places < 0, -torch.inf), places.clamp_min(0), log_rest

    def _on_layers(self, batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
        """Return the mean over the layers of what they lose."""
        inputs = fed(self._teacher, batch.samples)
        with torch.no_grad():
            self._teacher.module(**{name: tensor.to(device) for name, tensor in inputs.items()})
        mine, theirs = (watch.seen for watch in self._seen)
        alike = self._cut_alike(batch, inputs).to(device)
        found: dict[str, list[torch.Tensor]] = {}
        for index, like in enumerate(self._layers):
            if "hidden" in self._weights:
                own = self._projections.project(index, mine.hidden[index])
                rows = _real(own, batch.inputs, alike), _real(theirs.hidden[like], inputs, alike)
                found.setdefault("hidden", []).append(losses.hidden(*rows))
            if "relations" in self._weights and index == len(self._layers) - 1:
                for kind in ("queries", "keys", "values"):
                    own, real = _packed(getattr(mine, kind)[index], batch.inputs, alike)
                    other, _ = _packed(getattr(theirs, kind)[like], inputs, alike)
                    found.setdefault("relations", []).append(
                        losses.relations(own, other, real, self._options.relation_heads)
                    )
        return {name: torch.stack(values).mean() for name, values in found.items()}

    def _alike(self, batch: Batch, targets: Targets) -> torch.Tensor:
        """Return which samples have the teacher's positions [batch]; all, where positions do not count."""
        if len(targets.values) == len(batch.indices) and bool((targets.counts == 1).all()):
            return torch.ones(len(batch.indices), dtype=torch.bool)
        if self._place is not None:
            return self._cut_alike(batch, fed(self._teacher, batch.samples))
        mask = batch.inputs.get("attention_mask")
        return targets.counts == (targets.counts if mask is None else mask.sum(1))

    def _cut_alike(self, batch: Batch, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return which samples have the same tokens for teacher and student: bool [batch]."""
        if "input_ids" not in batch.inputs:
            return torch.ones(len(batch.indices), dtype=torch.bool)
        masks = [side["attention_mask"].bool() for side in (batch.inputs, inputs)]
        own, theirs = batch.inputs["input_ids"], inputs["input_ids"]
        if self._columns is not None:
            own = self._columns[own]
        pairs = zip(own, theirs, *masks, strict=True)
        return torch.tensor([torch.equal(a[real], b[other]) for a, b, real, other in pairs])


def _real(values: torch.Tensor, inputs: Mapping[str, torch.Tensor], chosen: torch.Tensor) -> torch.Tensor:
    """Return the rows of chosen samples without padding: [batch, (positions,) dim] → [rows, dim]."""
    chosen = chosen.to(values.device)
    if values.ndim == 2:
        return values[chosen]
    mask = inputs.get("attention_mask")
    if mask is None or mask.shape != values.shape[:2]:
        return values[chosen].flatten(0, 1)
    return values[mask.bool().to(values.device) & chosen[:, None]]


def _packed(
    values: torch.Tensor, inputs: Mapping[str, torch.Tensor], chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return chosen samples without their padding, made as long as the longest, and where they are real."""
    mask = inputs.get("attention_mask")
    if mask is None or mask.shape != values.shape[:2]:
        return values[chosen], torch.ones(values[chosen].shape[:2], device=values.device)
    real = mask.bool().to(values.device)
    rows = [row[where] for row, where, wanted in zip(values, real, chosen, strict=True) if wanted]
    if not rows:
        return values[:0], real[:0]
    ones = [row.new_ones(len(row)) for row in rows]
    return tuple(nn.utils.rnn.pad_sequence(each, batch_first=True) for each in (rows, ones))


def _stream_width(model: TorchModel) -> int:
    inner: Any = model.module.get_submodule("model")
    return int(inner.config.hidden_size)
