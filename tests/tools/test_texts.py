"""The demo's texts are real, readable and the same every time."""

from __future__ import annotations

from tools.texts import FEWEST_WORDS, MOST_WORDS, main, standard_library_texts

TEXTS = standard_library_texts()


def test_there_are_as_many_as_asked_for_and_none_twice() -> None:
    assert len(TEXTS) == 1500
    assert len(set(TEXTS)) == len(TEXTS)
    assert len(standard_library_texts(200)) == 200


def test_they_are_the_same_every_time() -> None:
    assert standard_library_texts() == TEXTS


def test_each_is_one_line_of_prose() -> None:
    for text in TEXTS:
        assert "\n" not in text
        assert FEWEST_WORDS <= len(text.split()) <= MOST_WORDS
        assert text[-1] in '.!?"'
        assert ">>>" not in text


def test_they_are_short_and_long() -> None:
    words = sorted(len(text.split()) for text in TEXTS)
    assert words[len(words) // 10] < 10
    assert words[-len(words) // 20] > 35


def test_the_file_has_one_on_each_line(tmp_path) -> None:
    output = tmp_path / "deep" / "texts.txt"
    main([str(output), "--limit", "50"])
    assert output.read_text(encoding="utf-8").splitlines() == standard_library_texts(50)
