"""A structure tells every size that a configuration does not, and nothing but sizes."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgekit.errors import ModelError
from edgekit.structure import LowRankEmbedding, LowRankLinear, Structure, difference, rebuild


class Block(nn.Module):
    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.table = nn.Embedding(11, 6, padding_idx=0)
        self.up = nn.Linear(6, width)
        self.norm = nn.BatchNorm1d(width)
        self.down = nn.Linear(width, 6, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.down(self.norm(self.up(self.table(ids)))) * self.heads


def _roundtrip(module: nn.Module, tmp_path) -> nn.Module:
    difference(Block(), module).save(tmp_path / "structure.json")
    document = json.loads((tmp_path / "structure.json").read_text())
    fresh = Block()
    rebuild(fresh, Structure.from_json(document, "structure.json"), "structure.json")
    fresh.load_state_dict(module.state_dict(), assign=True)
    return fresh.eval()


@given(width=st.integers(1, 20), heads=st.integers(0, 5))
def test_any_width_comes_back(width, heads, tmp_path_factory) -> None:
    module = Block(width, heads).eval()
    ids = torch.arange(11)
    again = _roundtrip(module, tmp_path_factory.mktemp("s"))
    assert torch.equal(again(ids), module(ids))
    assert again.up.out_features == width
    assert again.heads == heads


def test_low_rank_parts_come_back(tmp_path) -> None:
    module = Block().eval()
    module.up = LowRankLinear(6, 3, 8, bias=True)
    module.table = LowRankEmbedding(11, 2, 6, padding_idx=0)
    ids = torch.arange(11)
    assert torch.equal(_roundtrip(module, tmp_path)(ids), module(ids))


def test_an_unchanged_module_has_an_empty_structure() -> None:
    assert difference(Block(), Block()).empty


def test_other_parts_than_the_configuration_says_are_refused() -> None:
    module = Block()
    module.more = nn.Linear(2, 2)
    with pytest.raises(ModelError, match="'more'"):
        difference(Block(), module)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sizes": {"up": {"weight": 3}}}, "up.weight"),
        ({"sizes": {"gone": {"out_features": 3}}}, "gone.out_features"),
        ({"sizes": {"up": {"training": 1}}}, "up.training"),
        ({"shapes": {"up.other": [3]}}, "up.other"),
        ({"low_rank": {"norm": 3}}, "norm"),
        ({"sizes": {"up": {"out_features": "os.system"}}}, "damaged"),
        ({"sizes": {"up": {"out_features": True}}}, "damaged"),
        ({"sizes": []}, "damaged"),
        ({"schema_version": 9}, "schema 9"),
    ],
    ids=str,
)
def test_a_structure_that_fits_nothing_is_refused(change, match) -> None:
    document = {"schema_version": 1, "sizes": {}, "shapes": {}, "low_rank": {}, **change}
    with pytest.raises(ModelError, match=match):
        rebuild(Block(), Structure.from_json(document, "structure.json"), "structure.json")


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.none = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.none(self.norm(self.up(x)))


def test_a_norm_that_is_gone_stays_gone(tmp_path) -> None:
    module = Normed().eval()
    module.norm = nn.Identity()
    difference(Normed(), module).save(tmp_path / "structure.json")
    document = json.loads((tmp_path / "structure.json").read_text())
    assert document["absent"] == ["norm"]
    assert document["shapes"] == {}
    fresh = Normed()
    rebuild(fresh, Structure.from_json(document, "structure.json"), "structure.json")
    fresh.load_state_dict(module.state_dict())
    x = torch.randn(2, 6)
    assert torch.equal(fresh(x), module(x))


def test_only_norms_can_be_gone() -> None:
    with pytest.raises(ModelError, match="names 'up', which is no norm"):
        rebuild(Normed(), Structure(absent=("up",)), "structure.json")


def test_a_structure_of_before_norms_could_go_is_read() -> None:
    document = {"schema_version": 1, "sizes": {}, "shapes": {}, "low_rank": {}}
    assert Structure.from_json(document, "structure.json").empty
