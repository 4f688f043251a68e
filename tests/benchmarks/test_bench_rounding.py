"""The benchmark of rounding: what it holds out and what it says of closeness."""

import numpy as np
import pytest

from benchmarks.rounding import closeness, texts_apart


def test_every_text_is_either_calibrated_with_or_held_out(tmp_path):
    path = tmp_path / "texts.txt"
    lines = [f"text number {index}" for index in range(60)]
    path.write_text("\n".join([*lines, lines[0], ""]), encoding="utf-8")
    calibration, held_out = (
        [sample.value for sample in samples] for samples in texts_apart(path, calibration=24)
    )
    assert len(calibration) == 24
    assert sorted(calibration + held_out) == sorted(lines)


def test_one_text_out_of_line_shows_in_the_least_cosine_and_hardly_in_the_mean():
    wanted = np.eye(200)
    found = wanted.copy()
    found[7] = found[8]
    figures = closeness(wanted, found)
    assert figures["cosine_min"] == 0
    assert figures["cosine_p05"] == 1
    assert figures["cosine_mean"] == pytest.approx(199 / 200)
