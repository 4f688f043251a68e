"""The corpora: what formats are cleaned into, and how texts are shared out."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from tools import corpus, corpus_formats
from tools.corpus import Source, build, distinct, table

GCIDE = r"""
Coagulation \Co*ag`u*la"tion\, n. [L. coagulatio. Cf.
   {Cogent}, a.]
   1. The change from a liquid to a {thickened}, curdlike,
      insoluble state, as of blood. --Shak.
      [1913 Webster]

   2. (Med.) The substance formed by it.
      [1913 Webster]

   Note: It is often hard to stop.
         [1913 Webster]

   Syn: To thicken; curdle.
"""
FOLDOC = """
broker

   {object request broker}

brontobyte

   <unit, data> A proposed unit of {data} equal to 10^27 {bytes}.

   "Bronto-" is not an official prefix.

   (1999-07-21)
"""
WORDNET = """  1 This software and database is being provided to you, the LICENSEE,
00592895 04 n 01 hot_seat 0 001 @ 0058 n 0000 | a difficult position; "he felt the hot seat"; "so what"
00908315 00 a 02 red(a) 0 crimson 1 001 ! 0090 a 0101 | of a color at the end of the spectrum
"""


def test_a_definition_follows_its_word_without_origin_labels_and_authors() -> None:
    assert list(corpus_formats.gcide(GCIDE)) == [
        "Coagulation: The change from a liquid to a thickened, curdlike, insoluble state, as of blood.",
        "Coagulation: The substance formed by it.",
        "It is often hard to stop.",
    ]


def test_a_paragraph_of_computing_loses_links_categories_and_dates() -> None:
    assert list(corpus_formats.foldoc(FOLDOC))[1:] == [
        "Brontobyte: A proposed unit of data equal to 10^27 bytes.",
        '"Bronto-" is not an official prefix.',
    ]


def test_meanings_and_examples_are_sentences_and_the_licence_is_neither() -> None:
    assert list(corpus_formats.wordnet(WORDNET)) == [
        "Hot seat: a difficult position.",
        "He felt the hot seat.",
        "So what.",
        "Red: of a color at the end of the spectrum.",
    ]


def test_a_meaning_comes_with_the_file_of_its_lexicographers() -> None:
    assert list(corpus_formats.definitions(WORDNET)) == [
        (4, "a difficult position"),
        (0, "of a color at the end of the spectrum"),
    ]


def test_sayings_are_told_without_who_said_them() -> None:
    text = "A fool can tell\nthe truth.\n\t\t-- Somebody, 1900\n%\nLess is more.\n%\n"
    assert list(corpus_formats.fortunes(text)) == ["A fool can tell the truth.", "Less is more.", ""]


def test_slang_loses_the_lines_of_its_words() -> None:
    text = "   :batbelt: n.\n\n   Many hackers hang\n   {devices} from their belts.\n"
    assert list(corpus_formats.jargon(text)) == ["Many hackers hang devices from their belts."]


def test_perls_documentation_loses_its_codes_commands_and_listings() -> None:
    text = "=head1 NAME\n\nSee L<the manual|perlpod> of C<< a -> b >> and B<I<this>>.\n\n    print 1;\n"
    assert list(corpus_formats.pod(text)) == ["See the manual of a -> b and this."]


def test_scenes_say_what_is_marked_for_translation() -> None:
    text = 'id="Kalenz"\nmessage= _ "He said:\n""Run!"""\nname=_"Allies"'
    assert list(corpus_formats.translated(text)) == ['He said: "Run!"', "Allies"]


def test_conversations_are_between_back_quotes() -> None:
    text = 'name "Escort"\n\t`"Greetings, Captain," she says.`\n\t`\tYou nod.`\n'
    assert list(corpus_formats.spoken(text)) == ['"Greetings, Captain," she says.', "You nod."]


def test_a_games_database_tells_its_entries_without_their_names() -> None:
    text = "%%%%\nAgnes\n\nThis spriggan is\naged.\n\nVISUAL:She shimmers.\n%%%%\nAizul\n\nOnce.\n"
    assert list(corpus_formats.told(text)) == ["This spriggan is aged.", "She shimmers.", "Once."]


def test_the_strings_of_a_database_of_r_are_lines_of_a_novel() -> None:
    lines = ("It is a truth", "universally acknowledged.", "", "However little known.")
    ascii_string = b"\x00\x04\x00\x09"
    serialized = b"".join(ascii_string + len(line).to_bytes(4, "big") + line.encode() for line in lines)
    entry = len(serialized).to_bytes(4, "big") + zlib.compress(serialized)
    assert list(corpus_formats.novels(corpus_formats.r_strings(entry + entry))) == [
        "It is a truth universally acknowledged.",
        "However little known. It is a truth universally acknowledged.",
        "However little known.",
    ]


@pytest.mark.parametrize(
    "document",
    [
        "<html><head><title>T</title></head><p>One <b>bold</b> &amp; so.</p><pre>x = 1</pre>Two.</html>",
        "<page><info><desc>No.</desc></info><p>One <em>bold</em> &amp; so.<screen>ls</screen></p>Two.</page>",
    ],
    ids=["HTML", "Mallard"],
)
def test_documents_become_their_blocks_without_listings(document) -> None:
    assert list(corpus_formats.html_paragraphs(document)) == ["One bold & so.", "Two."]


def test_texts_are_whole_sentences_of_many_lengths() -> None:
    sentence = "This sentence is made of exactly eight words."
    paragraph = " ".join([sentence] * 20)
    texts = list(corpus_formats.paragraph_texts(iter([paragraph] * 3)))
    assert [len(text.split()) for text in texts] == [24] * 6 + [16] + [56, 56, 48] + [120, 40]
    assert " ".join(texts) == " ".join([paragraph] * 3)


def test_what_is_no_prose_is_left_out() -> None:
    assert list(corpus_formats.paragraph_texts(iter(["x = {1}", "Too short.", ""]))) == []


def test_every_text_comes_once_whatever_its_case() -> None:
    seen: set[bytes] = set()
    assert distinct(["One.", "ONE.", "Two."], seen) == ["One.", "Two."]
    assert distinct(["two.", "Three."], seen) == ["Three."]


def test_a_large_package_gives_no_more_than_its_part() -> None:
    ranked = [(bytes([n]), "x" * 9) for n in range(8)]
    assert corpus.limited(ranked, 35) == ranked[:3]
    assert corpus.limited(ranked, 1000) == ranked


def test_what_a_held_out_text_says_too_is_no_lesson() -> None:
    held_out = [(b"", "Never argue with a fool, for people might not know the difference.")]
    copy = (b"1", "Somebody said: never argue with a fool; for people might not see it.")
    shorter = (b"2", "Never argue with a fool, for people say so.")
    assert corpus.unlike([copy, shorter], held_out) == [shorter]


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Source, ...]:
    """Three packages that need no download: they lie in the folder already."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    made = []
    kinds = (("one", "general", "alpha"), ("two", "held-out", "omega"), ("three", "lessons", "gamma"))
    for name, part, first in kinds:
        root = tmp_path / name
        texts = [f"Text number {'i' * n} is of {first} itself." for n in range(300)]
        (root / "usr").mkdir(parents=True)
        (root / "usr/texts.gz").write_bytes(gzip.compress("\n%\n".join([*texts, SHARED]).encode()))
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: x\n"
        )
        (tmp_path / "out/packages").mkdir(parents=True, exist_ok=True)
        deb = tmp_path / f"out/packages/{name}_1_all.deb"
        subprocess.run(["dpkg-deb", "-b", root, deb], check=True, capture_output=True)
        made.append(Source(name, "usr/*.gz", corpus_formats.fortunes, "MIT", "numbered sentences", part))
    return tuple(made)


SHARED = "Both of the packages have this text in them."


def test_held_out_texts_are_of_other_packages_and_no_text_is_in_two_files(sources, tmp_path) -> None:
    rows = build(tmp_path / "out", sources)
    parts = {
        name: (tmp_path / f"out/{name}.txt").read_text().splitlines()
        for name in ("general", "in-domain", "held-out", "lessons")
    }
    assert all("omega" in text for text in parts["held-out"])
    assert all("alpha" in text or text == SHARED for text in parts["general"])
    assert set(parts["general"]) < set(parts["lessons"])
    assert 0 < len(parts["in-domain"]) < 40
    together = [text for name, texts in parts.items() if name != "general" for text in texts]
    assert len(set(together)) == len(together) == sum(row.lines for row in rows) == 901
    assert "MIT" in table(rows)


def test_the_same_packages_make_the_same_bytes(sources, tmp_path) -> None:
    build(tmp_path / "out", sources)
    once = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")}
    build(tmp_path / "out", sources)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")} == once


def test_a_package_whose_layout_changed_is_named(sources, tmp_path) -> None:
    moved = Source("one", "usr/gone/*", corpus_formats.fortunes, "MIT", "", "general")
    with pytest.raises(SystemExit, match=r"one_1_all.deb has no usr/gone/\*"):
        build(tmp_path / "out", [moved])


def test_without_apt_it_says_what_is_needed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="apt-get"):
        corpus.fetched("dict-gcide", tmp_path)
