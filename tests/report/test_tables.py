"""Tables and their plain data: what stands in them, and that nothing a user should read is lost."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from nasattn.attention import list_attention
from nasattn.front import FrontMember
from nasattn.report import tables
from nasattn.space import load_space
from nasattn.store import Store
from tests.report.records import member, study, trial

MEMBERS = [member(0, "none,none,none,none", latency_ratio=1.0), member(3, accuracy_sd=0.0456, seeds=3), member(12, "sb,sb,sb,sb")]


def shown(table: Table, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_front_in_the_terminal(width: int) -> None:
    text = shown(tables.front_table(MEMBERS, "Front of one", width), width)
    assert max(map(len, text.splitlines())) <= width
    assert "Front of one" in text
    for part in (
        "0.751",
        "± 0.012",
        "± 0.046",
        "1.000x",
        "1.100x",
        "(1.090-1.110)",
        "0.87",
        "none,",
        "sge_g32",
        "ela_l",
        "lka_k21_d3",
        "sb,sb,sb,sb",
    ):
        assert part in text
    assert ("33.0" in text and "23.51M" in text and "provisional" in text) == (width >= 120)
    assert ("none,sge_g32,ela_l,lka_k21_d3" in text) == (width >= 120)  # else folded at a comma


def test_a_narrow_terminal_folds_every_column_and_loses_none() -> None:
    text = shown(tables.front_table(MEMBERS, "Front of one", 60), 60)
    for part in ("none,sge_g32", "0.751 ±", "0.046", "1.100x", "(1.090-1.110", "0.87"):
        assert part in text


def test_an_empty_front_says_so() -> None:
    assert "no completed trial" in shown(tables.front_table([], "Front of one"))


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.front_csv(MEMBERS))))
    assert list(rows[0]) == [f.name for f in fields(FrontMember)]
    assert [r["placement"] for r in rows] == [m.placement for m in MEMBERS]  # their commas are quoted
    assert [float(r["accuracy"]) for r in rows] == [m.accuracy for m in MEMBERS]  # every digit
    assert [r["accuracy_sd"] for r in rows] == ["", "0.0456", ""]
    assert tables.front_csv([]).splitlines() == [",".join(f.name for f in fields(FrontMember))]


def test_studies(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/study.db")
    assert tables.study_summaries(store) == []
    assert "no study yet" in shown(tables.studies_table([]))
    for name in ("one", "two"):
        store.add_study(study(name))
    for record, end in ((trial(0), {"accuracy": 0.5}), (trial(1), {"accuracy": 0.75}), (trial(2), {"error": "x"})):
        state = "FAIL" if "error" in end else "COMPLETE"
        store.finish_evaluation(store.start_evaluation("one", "nasattn_resnet50", record, None), state, **end)  # type: ignore[arg-type]
    summaries = tables.study_summaries(store)
    one, two = summaries
    expected = {
        "study": "one",
        "space": "resnet50_stages",
        "task": "cued_digits",
        "trials": 3,
        "complete": 2,
        "failed": 1,
        "best_accuracy": 0.75,
        "seed": 7,
    }
    assert {k: one[k] for k in expected} == expected
    assert (two["trials"], two["best_accuracy"]) == (0, None)
    assert json.loads(json.dumps(summaries)) == summaries
    text = shown(tables.studies_table(summaries))
    assert "0.750" in text and "two" in text and "None" not in text
    store.engine.dispose()


def test_spaces() -> None:
    space = load_space("resnet18_stages")
    assert "83,521" in shown(tables.spaces_table([space]))
    text = shown(tables.space_table(space))
    assert "resnet18_stages: 83,521 placements on nasattn_resnet18" in text and "lka_k21_d3" in text
    summary = tables.space_summary(space)
    assert (summary["placements"], list(summary["stages"])) == (83521, ["1", "2", "3", "4"])
    assert json.loads(json.dumps(summary)) == summary


def test_attentions() -> None:
    rows = tables.attention_summaries()
    assert {r["token"].split("_")[0] for r in rows} >= {"none", "sb", "sge", "ela", "lka", "fsla", "se"}
    assert len(rows) == len(list_attention())
    assert json.loads(json.dumps(rows)) == rows
    by_token = {r["token"]: r for r in rows}
    assert by_token["none"]["params_at_256"] == 0
    assert by_token["sge_g64"]["params_at_256"] == 2 * 64  # a weight and a bias a group
    assert by_token["sge_g64"]["options"] == {"groups": {"letter": "g", "default": 64}}
    assert "sge_g64" in shown(tables.attentions_table(rows))


def details(**values: object) -> str:
    return shown(tables.pairs_table(tables.trial_details(study(), trial(0, **values))))  # type: ignore[arg-type]


def test_one_trial() -> None:
    text = details()
    for part in (
        "none,sge_g32,none,none",
        "none,sge_g4,none,none",
        "0.75",
        "33.00 ms, 1.100x (1.090 to 1.120) of the plain 30.00 ms",
        "23,512,345",
        "width: 0.125",
        "precision: bfloat16",
    ):
        assert part in text
    assert "epoch 1: loss 2.2500, accuracy 0.5000, 4.0 s" in text
    assert "epoch 2: loss not finite, accuracy not finite, 8.0 s" in text  # it diverged
    assert "error" not in text and "reused" not in text


def test_nought_is_a_value() -> None:
    lines = [line.split() for line in details(accuracy=0.0).splitlines()]
    assert ["trial", "0"] in lines and ["seed", "0"] in lines and ["accuracy", "0.0"] in lines


def test_errors_are_shown_as_they_are() -> None:
    """Brackets in an error are no markup."""
    error = "Traceback:\nRuntimeError: shape [batch, 3] is not [/tmp/x] [red]"
    text = details(state="FAIL", accuracy=None, error=error, latency=None)
    assert "RuntimeError: shape [batch, 3] is not [/tmp/x] [red]" in text and "FAIL" in text
    assert "latency" not in text


def test_names_and_values() -> None:
    text = shown(
        tables.pairs_table(
            {"list": ["a", "b"], "mapping": {"k": 1}, "nothing": None, "empty": [], "none of it": {}, "no": False, "yes": True}
        )
    )
    assert [line.split() for line in text.splitlines()] == [["list", "a"], ["b"], ["mapping", "k:", "1"], ["yes", "True"]]
