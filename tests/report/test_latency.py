"""What a measured space shows: plain data, a table for the terminal, and a picture."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from nasattn.errors import UsageError
from nasattn.latency import LatencyTable, TableError
from nasattn.report.latency import check_picture, describe_measurement, latency_summary, latency_table, plot_latencies
from nasattn.search.latencies import SpaceLatencies
from nasattn.space import SearchSpace
from nasattn.store import LatencyRecord

KEY = "A CPU | eager-torch2.15.0 | batch 1 | 224 px | float32 | 1 thread"
SPACE = SearchSpace.from_dict(
    "tiny",
    {
        "host": "nasattn_resnet18",
        "stages": {1: {"none": None, "se": None, "sge": {"groups": [16, 32]}}, 2: {"none": None, "se": None}, 3: {"none": None}, 4: {"none": None, "lka": None}},
    },
)  # fmt: skip


def entry(ratio: float, spread: float = 0.01, exclusive: bool = True) -> LatencyRecord:
    return LatencyRecord(20 * ratio, 20.0, ratio, ratio - spread, ratio + spread, 9, True, exclusive, "table")


ENTRIES = {
    (1, "none"): entry(0.4),
    (2, "none"): entry(0.3),
    (3, "none"): entry(0.2),
    (4, "none"): entry(0.1),
    (1, "se"): entry(1.05),
    (1, "sge_g16"): entry(1.5),
    (1, "sge_g32"): entry(2.0, spread=0.05, exclusive=False),
    (2, "se"): entry(0.9),
}
ERROR = TableError(4, 0.012, 0.034, 0.66)
FOUND = SpaceLatencies(
    SPACE, KEY, LatencyTable(ENTRIES, 0.02), ERROR, {(4, "lka_k21_d3"): "runtime 'eager' cannot run Stage(4: lka_k21_d3): no kernel"}
)
SOUND = replace(
    FOUND, table=LatencyTable({k: replace(v, exclusive=True) for k, v in ENTRIES.items()} | {(4, "lka_k21_d3"): entry(3.0)}), failures={}
)


def render(found: SpaceLatencies, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, _environ={})
    console.print(latency_table(found, width))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_summary_is_plain_data() -> None:
    summary = latency_summary(FOUND)
    assert json.loads(json.dumps(summary)) == summary
    assert {k: summary[k] for k in ("space", "host", "device", "plain_ms")} == {
        "space": "tiny", "host": "nasattn_resnet18", "device": KEY, "plain_ms": 20.0,
    }  # fmt: skip
    assert [(s["stage"], s["share"], len(s["attentions"])) for s in summary["stages"]] == [
        (1, 0.4, 3),
        (2, 0.3, 1),
        (3, 0.2, 0),
        (4, 0.1, 1),
    ]
    assert summary["error"] == {"placements": 4, "median": 0.012, "worst": 0.034, "kendall": 0.66}
    assert latency_summary(replace(FOUND, error=None))["error"] is None


def test_what_an_attention_adds() -> None:
    """Stage 1 takes 40 % of 20 ms: with 1.5 times its time, 20 % and 4 ms are added."""
    cells = {c["attention"]: c for c in latency_summary(FOUND)["stages"][0]["attentions"]}
    assert list(cells) == ["se", "sge_g16", "sge_g32"]
    assert cells["sge_g16"] == {
        "attention": "sge_g16",
        "added_ms": pytest.approx(4.0),
        "added_percent": pytest.approx(20.0),
        "plus_minus_percent": pytest.approx(0.4),
        "stage_ratio": 1.5,
        "stage_ratio_low": 1.49,
        "stage_ratio_high": 1.51,
        "exclusive": True,
    }
    assert cells["sge_g32"]["added_percent"] == pytest.approx(40.0)
    assert cells["sge_g32"]["plus_minus_percent"] == pytest.approx(2.0)
    assert cells["sge_g32"]["exclusive"] is False


def test_what_takes_away() -> None:
    (cell,) = latency_summary(FOUND)["stages"][1]["attentions"]
    assert (cell["added_ms"], cell["added_percent"]) == pytest.approx((-0.6, -3.0))


def test_a_failure_says_why() -> None:
    (cell,) = latency_summary(FOUND)["stages"][3]["attentions"]
    assert cell == {"attention": "lka_k21_d3", "failure": "runtime 'eager' cannot run Stage(4: lka_k21_d3): no kernel"}


def test_the_table() -> None:
    text = render(FOUND)
    lines = text.splitlines()
    assert lines[0].strip() == "nasattn_resnet18, plain: 20.0 ms"
    assert lines[1].strip() == KEY
    header = next(line for line in lines if "stage 1" in line)
    assert " ".join(header.split()) == "adds to the plain host stage 1 (40%) stage 2 (30%) stage 3 (20%) stage 4 (10%)"
    rows = {line.split()[0]: line for line in lines if line.strip().startswith(("se ", "sge_", "lka_"))}
    assert list(rows) == ["se", "sge_g16", "sge_g32", "lka_k21_d3"]
    assert "+4.00 ms  +20.0±0.4 %" in rows["sge_g16"]
    assert "-0.60 ms   -3.0±0.3 %" in rows["se"]
    assert "cannot run" in rows["lka_k21_d3"]
    assert "error of a prediction: median 1.2%, worst 3.4%, Kendall tau 0.66 over 4 placements measured end to end" in text
    assert "stage 4, lka_k21_d3: runtime 'eager' cannot run Stage(4: lka_k21_d3): no kernel" in text


def test_what_was_measured_on_a_shared_device_has_a_star() -> None:
    text = render(FOUND)
    assert "+40.0±2.0 %*" in text
    assert text.count("*") == 2 and "* something else used the device meanwhile (shared): measured again by the same command" in text
    assert "*" not in render(SOUND)


def test_brackets_in_a_failure_are_shown() -> None:
    why = "RuntimeError: [enforce fail at alloc_cpu.cpp:117] no [/x] memory"
    assert why in render(replace(FOUND, failures={(4, "lka_k21_d3"): why}))


def test_a_narrow_terminal_shows_names_and_percentages() -> None:
    text = render(FOUND, 80)
    assert "lka_k21_d3" in text and "+20.0±0.4" in text and "+4.00 ms" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_space_of_failures_is_drawn_and_one_of_nothing_refused(tmp_path: Path) -> None:
    one = SearchSpace.from_dict("one", {"host": "nasattn_resnet18", "stages": {4: {"lka": None}, "all": {"none": None}}})
    plot_latencies([replace(FOUND, space=one)], tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000
    nothing = SearchSpace.from_dict("nothing", {"host": "nasattn_resnet18", "stages": {"all": {"none": None}}})
    with pytest.raises(UsageError, match="nothing to draw: the space offers no attention besides none"):
        plot_latencies([replace(FOUND, space=nothing)], tmp_path / "nothing.png")


def test_without_an_error_it_says_so() -> None:
    assert "error of a prediction: not known, no placement measured end to end" in render(replace(FOUND, error=None))


def test_nothing_is_cut_off_where_there_is_room() -> None:
    assert "…" not in render(FOUND)


@pytest.mark.parametrize(
    ("name", "begins"),
    [("costs.png", b"\x89PNG\r\n\x1a\n"), ("costs.PNG", b"\x89PNG\r\n\x1a\n"), ("costs.svg", b"<?xml"), ("costs.pdf", b"%PDF-")],
)
def test_a_picture_is_what_its_name_says(tmp_path: Path, name: str, begins: bytes) -> None:
    path = tmp_path / name
    plot_latencies([FOUND], path)
    drawn = path.read_bytes()
    assert drawn.startswith(begins) and len(drawn) > 5000
    if name.endswith("svg"):
        assert b"</svg>" in drawn and b"<path" in drawn


def test_a_picture_of_one_device_is_narrower_than_one_of_two(tmp_path: Path) -> None:
    from PIL import Image

    plot_latencies([FOUND], tmp_path / "one.png")
    plot_latencies([FOUND, replace(SOUND, key=KEY.replace("eager", "compile"), error=None)], tmp_path / "two.png")
    one, two = (Image.open(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert two.width > 1.5 * one.width and two.height == one.height


def test_the_picture_is_drawn_from_what_was_found(tmp_path: Path) -> None:
    """In an SVG text is drawn as outlines: another number gives another drawing, the same numbers the same."""
    colours = []
    for number, found in enumerate((SOUND, SOUND, replace(SOUND, table=LatencyTable({**SOUND.table.entries, (1, "se"): entry(1.9)})))):
        plot_latencies([found], tmp_path / f"{number}.png")
        colours.append((tmp_path / f"{number}.png").read_bytes())
    assert colours[0] == colours[1] != colours[2]


@pytest.mark.parametrize("name", ["costs.gif", "costs", "costs.png.txt", ".png"])
def test_what_is_no_picture(tmp_path: Path, name: str) -> None:
    for refuse in (check_picture, lambda path: plot_latencies([FOUND], path)):
        with pytest.raises(UsageError) as caught:
            refuse(tmp_path / name)
        assert str(caught.value) == f"--plot {tmp_path / name}: unknown kind of picture {Path(name).suffix!r}; allowed: .png, .svg, .pdf"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        plot_latencies([FOUND], tmp_path / "no" / "costs.png")
    assert str(caught.value) == f"--plot {tmp_path}/no/costs.png: no folder {tmp_path}/no; make it first"


def test_a_file_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_picture(Path("costs.png"))


def test_a_measurement_in_words() -> None:
    record = replace(
        entry(1.25), method="pair", settled=False, ms_p90=26.0, baseline_ms_p90=21.0, calibration=0.002, contention="a neighbour"
    )
    shown = describe_measurement({"host": "h", "placement": "se", "device": KEY, **asdict(record)})
    assert shown["latency"] == "25.00 ms (90 % within 26.00)" and shown["plain"] == "20.00 ms (90 % within 21.00)"
    assert shown["ratio"].startswith("1.2500x, 95 % interval 1.2400 to 1.2600, 9 rounds; the interval did not become")
    assert (shown["equal models"], shown["shared"]) == ("differ by +0.20% in this run", "a neighbour")
