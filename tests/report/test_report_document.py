"""report.json: strict, complete, and readable again."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import PackageError
from edgekit.record import Check
from edgekit.report.document import completed, load_reports, strict_json
from edgekit.report.wording import number
from edgekit.store import dump_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_a_saved_report_is_read_back_as_it_was(fast, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(dump_json(fast.to_json()))
    assert load_reports(path) == [fast.to_json()]


def test_a_file_over_all_targets_is_read_back_in_order(reports, tmp_path):
    documents = [report.to_json() for report in reports]
    path = tmp_path / "report.json"
    path.write_text(dump_json({"schema_version": 1, "targets": documents}))
    assert load_reports(path) == documents


def test_the_report_spells_out_states_and_verdicts(fast):
    verdict = fast.to_json()["verdict"]
    assert verdict["passed"] is True
    assert [check["state"] for check in verdict["checks"]] == [
        "pass", "pass", "info", "pass", "pass", "not measured",
    ]  # fmt: skip
    assert [point["verdict"] for point in verdict["latency"]] == ["faster", "faster", "cannot tell"]


def test_a_nan_survives_strict_json_as_a_failed_check(fast, tmp_path):
    broken = replace(fast.verdict, checks=(Check("sqnr_db", "SQNR", float("nan"), "dB", ">=", 20.0),))
    path = tmp_path / "report.json"
    path.write_text(dump_json(replace(fast, verdict=broken).to_json()))
    check = load_reports(path)[0]["verdict"]["checks"][0]
    assert (check["measured"], check["state"]) == ("NaN", "fail")


@given(JSON)
def test_whatever_a_record_holds_becomes_strict_json(value):
    json.loads(json.dumps(strict_json(value), allow_nan=False))


@given(st.floats())
def test_every_float_can_be_read_out_of_strict_json_again(value):
    again = number(strict_json(value))
    assert again == value or (again != again and value != value)


def test_a_sparse_report_is_completed_and_unknown_keys_are_kept():
    document = completed({"verdict": {"target": "x"}, "later": 1})
    assert document["verdict"]["checks"] == []
    assert document["later"] == 1
    assert document["verdict"]["target"] == "x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "report not found"),
        ("{", "is not valid JSON"),
        ('{"targets": {}}', "is not an edgekit report"),
        ("[]", "is not an edgekit report"),
        ('{"verdict": [], "schema_version": 1}', "'verdict' is not a JSON object"),
        ('{"verdict": {"checks": "x"}, "schema_version": 1}', "'checks' is not a JSON list"),
        ('{"verdict": {}, "schema_version": 2}', "schema version 2"),
    ],
)
def test_a_file_that_is_no_report_is_refused_by_name(content, message, tmp_path):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PackageError, match=message) as caught:
        load_reports(path)
    assert caught.value.hint
