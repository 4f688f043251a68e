"""The file of trained scales: what is written is what is read, and damage is told."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import ModelError
from edgekit.trained_scales import CodeRules, ProductScales, TableScales, TrainedScales

SCALES = TrainedScales(
    "cpu-x86",
    CodeRules(False, True, False),
    {"a.b": ProductScales(float(np.float32(0.1)), 117, np.array([0.5, 0.25], np.float32))},
    {
        "rows": TableScales(np.ones(3, np.float32)),
        "blocks": TableScales(np.ones((3, 2), np.float32), np.full((3, 2), 7, np.uint8)),
    },
)


def test_every_number_comes_back_as_it_was(tmp_path):
    SCALES.save(tmp_path / "scales.npz")
    again = TrainedScales.load(tmp_path / "scales.npz")
    assert (again.target, again.rules) == (SCALES.target, SCALES.rules)
    assert {n: (p.step, p.zero, p.weight.tolist()) for n, p in again.products.items()} == {
        n: (p.step, p.zero, p.weight.tolist()) for n, p in SCALES.products.items()
    }
    assert {name: table.form for name, table in again.tables.items()} == {"rows": "int8", "blocks": "int4"}
    assert again.tables["rows"].zero_point is None
    np.testing.assert_array_equal(again.tables["blocks"].zero_point, SCALES.tables["blocks"].zero_point)


def test_the_same_scales_make_the_same_bytes(tmp_path):
    for name in ("one.npz", "two.npz"):
        SCALES.save(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


@pytest.mark.parametrize("harm", ["cut short", "text", "array missing"])
def test_a_damaged_file_is_named(harm, tmp_path):
    path = tmp_path / "scales.npz"
    SCALES.save(path)
    if harm == "cut short":
        path.write_bytes(path.read_bytes()[:200])
    elif harm == "text":
        path.write_text("no scales")
    else:
        arrays = dict(np.load(path))
        del arrays["product/a.b"]
        np.savez(path, **arrays)
    with pytest.raises(ModelError, match=r"scales\.npz is damaged"):
        TrainedScales.load(path)


def test_another_version_is_refused(tmp_path):
    path = tmp_path / "scales.npz"
    np.savez(path, header=np.array('{"schema": 99}'))
    with pytest.raises(ModelError, match="schema 99"):
        TrainedScales.load(path)
