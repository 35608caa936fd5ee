"""Notes in Markdown: written again without losing what a reader added, and harmless whatever a study is called."""

from __future__ import annotations

import pytest

from nasattn.report.notes import BORDER, front_rows, member_note, merged, study_note
from tests.report.records import member, study, trial


def test_a_note_is_replaced_above_its_border_only() -> None:
    first = merged("", "one")
    assert first.startswith("one\n\n---\n\n" + BORDER) and merged(first, "one") == first
    added = first + "\nmine\n"
    assert merged(added, "two") == first.replace("one", "two") + "\nmine\n"
    assert merged(merged(added, "two"), "two") == merged(added, "two")


def test_what_stood_there_before_nasattn_wrote_goes_below() -> None:
    assert merged("mine\n", "one").endswith(f"{BORDER}\n\nmine\n")


@pytest.mark.parametrize("name", ["a|b", "`a`\n# no", "<img src=x onerror=alert(1)>", "a b; rm -rf ."])
def test_names_stay_within_their_code_and_their_shell_word(name: str) -> None:
    note = study_note(study(name), [trial(0, "none,none,none,none")], "interrupted", "")
    heading = note.splitlines()[0]
    assert heading.count("`") == 2 and heading.endswith("`") and "|" not in heading
    (export,) = [line for line in member_note(study(name), member(), [], "").splitlines() if line.startswith("nasattn export")][:1]
    assert "nasattn export '" in export


def test_latencies_of_the_table_are_marked_and_explained() -> None:
    rows = "\n".join(front_rows([member(latency_method="table", latency_exclusive=False)]))
    assert "1.100x (1.090 to 1.110)\\~\\* |" in rows and "\\~ predicted from the table" in rows and "\\* something else" in rows


def test_one_and_several_seeds() -> None:
    assert "0.751 ± 0.012, 1 seed |" in member_note(study(), member(), [], "")
    assert "0.751 ± 0.040, 2 seeds, +0.100 on the plain host |" in member_note(study(), member(seeds=2, accuracy_sd=0.04, gain=0.1), [], "")
