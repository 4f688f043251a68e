"""The page: one offline file that says everything, whoever named the nodes."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from edgekit.errors import InputError
from edgekit.profile import TargetProfile
from edgekit.record import Check, OutputError
from edgekit.report.html import RULES, charts, render_html
from edgekit.store import dump_json

VOID = {"meta", "br", "rect", "line", "circle", "polygon"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], set(), [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def page(reports) -> str:
    return render_html([report.to_json() for report in reports])


def test_the_page_is_well_formed_and_shows_every_target(page):
    reader = Reader(page)
    assert reader.open == []
    for target in ("cpu-x86", "arm64", "cpu-x86-portable"):
        assert target in reader.text
    assert "It passes on 2 of 3 targets; arm64 does not." in reader.text


def test_the_page_loads_nothing_and_runs_nothing(page):
    reader = Reader(page)
    assert reader.tags.isdisjoint({"script", "link", "iframe", "img", "object", "form", "base"})
    names = {name for name, _ in reader.attributes}
    assert names.isdisjoint({"src", "style", "onclick", "onload", "srcset", "action"})
    assert all(str(value).startswith("#target-") for name, value in reader.attributes if name == "href")
    assert "url(" not in page
    assert "@import" not in page


def test_the_content_security_policy_admits_exactly_this_style(page):
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(value for name, value in Reader(page).attributes if "default-src" in str(value))
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_hostile_names_are_text_everywhere(hostile):
    page = render_html([hostile.to_json()])
    assert "<script" not in page
    reader = Reader(page)
    assert reader.open == []
    assert "script" not in reader.tags
    assert page.count("&lt;script&gt;") > 25


def test_what_cannot_be_written_as_utf8_does_not_stop_the_page(fast):
    verdict = replace(fast.verdict, notes=("a lone \udc80 surrogate",), target="\x00\udc80")
    render_html([replace(fast, verdict=verdict).to_json()]).encode("utf-8")


def test_missing_latency_is_said_with_its_reason_and_no_figure(untimed_and_failing):
    text = Reader(render_html([untimed_and_failing.to_json()])).text
    assert "Not measured here: the target is aarch64 and this machine is x86_64" in text
    assert "Speed against the float model" not in text


def test_a_failed_check_shows_value_budget_and_reason(untimed_and_failing):
    text = Reader(render_html([untimed_and_failing.to_json()])).text
    row = text[text.index("Checks") :]
    assert re.search(r"5th percentile .*? 0\.9725 ≥ 0\.9800 ✗ fail few samples may be worse", row)


def test_a_slower_model_is_called_slower(slower):
    text = Reader(render_html([slower.to_json()])).text
    assert "▼ slower" in text
    assert "ship the float file" in text
    assert "▲ faster" not in text


def test_skips_are_grouped_by_their_reason(fast):
    text = Reader(render_html([fast.to_json()])).text
    assert "13 left alone, with the reason" in text
    assert "softmax is too peaked for 8 bits (12):" in text
    assert "/encoder/layer.5/attention/MatMul_2" in text


def test_rules_are_shown_with_their_sources(fast):
    text = Reader(render_html([fast.to_json()])).text
    assert "Type of quantized activations uint8 onnxruntime core/mlas" in text


def test_what_all_targets_share_is_said_once(page):
    assert page.count("edgekit export sentence-transformers/") == 1
    assert page.count("texts.txt, held out") == 1


def test_what_targets_do_not_share_is_said_for_each(fast, slower):
    page = render_html([fast.to_json(), replace(slower, command="another command").to_json()])
    text = Reader(page).text
    assert "cpu-x86 edgekit export" in text
    assert "cpu-x86-portable another command" in text


def test_a_saved_report_makes_the_same_page(reports, page):
    saved = [json.loads(dump_json(report.to_json())) for report in reports]
    assert render_html(saved) == page


def test_the_same_reports_make_the_same_page(reports, page):
    assert render_html([report.to_json() for report in reports]) == page


def test_a_sparse_report_still_makes_a_page():
    document = {
        "model": {"name": "m"},
        "verdict": {
            "target": "t",
            "checks": [{"name": "sqnr_db", "measured": "NaN", "budget": 20, "state": "fail"}],
            "latency": [{"shape": "1x16"}],
            "output_errors": [{"output": "y"}],
        },
        "history": [{"stage": "export"}],
    }
    reader = Reader(render_html([document]))
    assert reader.open == []
    assert "not a number" in reader.text


def test_the_gate_is_marked_in_the_spread_of_errors(fast):
    captions = dict(charts(fast.to_json()))
    chart = captions["Cosine similarity of output sentence_embedding, one value per sample"]
    assert "gate of the p05 ≥ 0.9800" in chart
    assert "p05 0.9945" in chart


def test_a_measure_that_is_not_known_is_shown_without_a_gate(fast):
    verdict = replace(fast.verdict, output_errors=(OutputError("y", "odd_measure", (1.0, 2.0)),))
    captions = dict(charts(replace(fast, verdict=verdict).to_json()))
    assert "gate" not in captions["odd measure of output y, one value per sample"]


def test_a_value_that_is_infinite_is_said(fast):
    check = Check("sqnr_db", "SQNR", float("inf"), "dB", ">=", 20.0)
    document = replace(fast, verdict=replace(fast.verdict, checks=(check,))).to_json()
    assert "infinite dB" in Reader(render_html([document])).text


def test_reports_of_two_models_are_refused(fast, slower):
    with pytest.raises(InputError, match="different models"):
        render_html([fast.to_json(), replace(slower, model_name="another").to_json()])
    with pytest.raises(InputError, match="no report"):
        render_html([])


def test_every_rule_named_here_is_a_key_of_profiles():
    for dotted, _ in RULES:
        table, key = dotted.split(".")
        assert key in TargetProfile.model_fields[table].annotation.model_fields
