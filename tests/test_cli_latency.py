"""`nasattn latency --space` and `nasattn front --device` as a user meets them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nasattn
from nasattn.cli import _run
from nasattn.errors import StudyError
from nasattn.search.study import make_config
from nasattn.store import EvaluationRecord, LatencyRecord, Store, StudyRecord

HOST = "nasattn_resnet18"
SPACE = "host: nasattn_resnet18\nstages: {1: {none: , se: }, 2: {none: , sge: {groups: [8]}}, 3: {none: }, 4: {none: }}"
ENTRIES = {(1, "none"), (1, "se"), (2, "none"), (2, "sge_g8"), (3, "none"), (4, "none")}


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("space") / "tiny.yaml"
    path.write_text(SPACE)
    return str(path)


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert _run(list(arguments)) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """One line on stderr and nothing on stdout, with exit code 2; without the program's name."""
    assert _run(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("nasattn: ")
    return captured.err.removeprefix("nasattn: ").strip()


@dataclass(frozen=True)
class Measured:
    """What one run of the command left and printed."""

    url: str
    command: list[str]
    summary: dict[str, Any]
    picture: Path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, space_file: str) -> Measured:
    """A space, measured once for the module by the command line, and drawn."""
    from contextlib import redirect_stderr, redirect_stdout

    folder = tmp_path_factory.mktemp("latency")
    url, picture = f"sqlite:///{folder / 'latencies.db'}", folder / "costs.png"
    command = ["latency", "--space", space_file, "--storage", url, "--resolution", "32", "--held-out", "1"]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert _run([*command, "--json", "--plot", str(picture)]) == 0
    assert err.getvalue() == f"Drawn: {picture}\n"  # no bar where there is no terminal
    return Measured(url, command, json.loads(out.getvalue()), picture)


def test_a_space_as_json(measured: Measured) -> None:
    summary = measured.summary
    assert (summary["space"], summary["host"]) == ("tiny", HOST)
    assert "eager-torch" in summary["device"] and "| batch 1 | 32 px | float32 | 1 thread" in summary["device"]
    assert summary["plain_ms"] > 0
    assert [s["stage"] for s in summary["stages"]] == [1, 2, 3, 4]
    assert [[c["attention"] for c in s["attentions"]] for s in summary["stages"]] == [["se"], ["sge_g8"], [], []]
    for stage in summary["stages"]:
        assert stage["share"] > 0
        for cell in stage["attentions"]:
            assert cell["stage_ratio_low"] <= cell["stage_ratio"] <= cell["stage_ratio_high"]
            assert cell["added_percent"] == pytest.approx(100 * stage["share"] * (cell["stage_ratio"] - 1))
            assert cell["added_ms"] == pytest.approx(cell["added_percent"] / 100 * summary["plain_ms"])


def test_what_was_measured_is_in_the_database(measured: Measured) -> None:
    store = Store(measured.url, create=False)
    (key,) = store.device_keys(HOST)
    assert key == measured.summary["device"]
    assert set(store.entries(key, HOST)) == ENTRIES
    assert len(store.latencies(key, HOST)) <= 1  # the placement held out, unless it is the plain host


def test_the_picture(measured: Measured) -> None:
    assert measured.picture.read_bytes().startswith(b"\x89PNG")


def test_the_table_is_printed_from_what_is_known(measured: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    """The second run measures only what was shared."""
    store = Store(measured.url, create=False)
    for (stage, attention), entry in store.entries(measured.summary["device"], HOST).items():
        known = LatencyRecord(entry.ms, entry.baseline_ms, entry.ratio, entry.ratio_low, entry.ratio_high, 9, True, True)
        store.add_entry(measured.summary["device"], HOST, stage, attention, known)
    text = read(capsys, *measured.command)
    assert text.startswith(f"{HOST}, plain: ")
    assert measured.summary["device"] in text and "*" not in text
    assert all(f"stage {n} (" in text for n in (1, 2, 3, 4))
    rows = [line for line in text.splitlines() if line.strip().startswith(("se", "sge_g8"))]
    assert len(rows) == 2 and all(" ms " in row and " %" in row for row in rows)
    again = json.loads(read(capsys, *measured.command, "--json"))
    assert again["stages"][0]["attentions"][0]["stage_ratio"] == measured.summary["stages"][0]["attentions"][0]["stage_ratio"]


def test_the_same_by_the_api(measured: Measured, space_file: str) -> None:
    notes: list[tuple[int, int, str]] = []
    found = nasattn.api.measure_table(
        space_file, storage=measured.url, held_out=0, resolution=32, listener=lambda *note: notes.append(note)
    )
    assert found.key == measured.summary["device"] and set(found.table.entries) == ENTRIES
    assert notes[-1][0] == notes[-1][1]


def test_one_placement_is_recorded_where_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    figures = json.loads(read(capsys, "latency", HOST, "none,eca,none,none", "--resolution", "32", "--storage", url, "--json"))
    assert figures["ratio_low"] <= figures["ratio"] <= figures["ratio_high"] and figures["method"] == "pair"
    found = Store(url).latencies(figures["device"], HOST)
    assert {p: r.ratio for p, r in found.items()} == {"none,eca,none,none": figures["ratio"]}


MISTAKES: list[tuple[list[str], str]] = [
    (["--space", "SPACE", HOST, "none"], f"give either --space or a host and a placement, got both --space SPACE and {HOST}"),
    ([], "give a host and a placement, such as `nasattn latency nasattn_resnet50 none,sge_g32,none,none`, or --space NAME"),
    ([HOST], "give a host and a placement, such as"),
    ([HOST, "none", "--plot", "x.png"], "--plot draws a space: give --space NAME instead of a host and a placement"),
    (["--space", "SPACE", "--plot", "x.gif"], "--plot x.gif: unknown kind of picture '.gif'; allowed: .png, .svg, .pdf"),
    (["--space", "SPACE", "--plot", "no/x.png"], "--plot no/x.png: no folder "),
    (["--space", "SPACE", "--runtime", "eager", "--runtime", "compil"], "unknown runtime 'compil'. Did you mean 'compile'?"),
    (["--space", "SPACE", "--runtime", "eager", "--runtime", "cudagraph"], "runtime 'cudagraph' runs on cuda, not on 'cpu'"),
    (["--space", "SPACE", "--held-out", "-1"], "Invalid value for '--held-out': "),
    (["--space", "SPACE", "--held-out", "many"], "Invalid value for '--held-out': "),
    (["--space", "SPACE", "--batch", "0"], "Invalid value for '--batch': "),
    (["--space", "SPACE", "--resolution", "0"], "Invalid value for '--resolution': "),
    (["--space", "SPACE", "--threads", "0"], "Invalid value for '--threads': "),
    (["--space", "SPACE", "--dtype", "float32x"], "unknown dtype 'float32x': Did you mean 'float32'"),
    (["--space", "SPACE", "--dtype", "float16"], "runtime 'eager' on cpu takes no images in torch.float16; allowed: torch.float32"),
    (["--space", "SPACE", "--device", "tpu"], "unknown device 'tpu': allowed: cpu, cuda"),
    (["--space", "SPACE", "--storage", "nonsense"], "the storage is not a database URL"),
    (["--space", "nosuchspace"], "unknown name 'nosuchspace' in search_spaces: "),
    (["--space", "missing.yaml"], "no file missing.yaml"),
    ([HOST, "none", "--runtime", "eager", "--runtime", "onnx"], "unknown runtime 'onnx'. Did you mean 'onnxruntime'?"),
    ([HOST, "none", "--runtime", "onnx"], "unknown runtime 'onnx'. Did you mean 'onnxruntime'?"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_found_before_anything_is_measured(
    arguments: list[str],
    message: str,
    space_file: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NASATTN_STORAGE", raising=False)
    told = refused(capsys, "latency", *(space_file if a == "SPACE" else a for a in arguments))
    assert told.startswith(message.replace("SPACE", space_file))
    assert not list(tmp_path.iterdir())  # no database, no picture


KEYS = ["A CPU | eager-torch2.15.0 | batch 1", "A phone | onnxruntime-1.31.1 | batch 1", "A phone | onnxruntime-1.31.1 | batch 8"]
PHONE = KEYS[1]
PLAIN, SE, SGE, GC = "none,none,none,none", "se,none,none,none", "none,sge_g32,none,none", "none,none,none,gc"


def latency(ratio: float, exclusive: bool = True) -> LatencyRecord:
    return LatencyRecord(10 * ratio, 10, ratio, ratio, ratio, 8, True, exclusive)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A study of four trials on a CPU, and what a phone takes for them: one measured, one predicted, one of them not known."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    store = Store(url)
    config = make_config({"space": "resnet18_stages"})
    store.add_study(StudyRecord("s", config.to_dict(), {}, 0))
    rows = [(PLAIN, 0.5, 1.0), (SE, 0.7, 1.1), (SGE, 0.9, 1.3), (GC, 0.95, 1.4)]
    for number, (placement, accuracy, ratio) in enumerate(rows):
        store.add_architecture(HOST, placement, 11_000_000 + number, 2_000_000_000)
        record = EvaluationRecord(number, placement, "RUNNING", 0, 11_000_000, 2_000_000_000, {}, placement)
        evaluation = store.start_evaluation("s", HOST, record, store.add_latency(KEYS[0], HOST, placement, latency(ratio)))
        store.finish_evaluation(evaluation, "COMPLETE", accuracy=accuracy, val_samples=2000)
    store.add_latency(PHONE, HOST, SE, latency(2.5, exclusive=False))
    for stage, attention, ratio in [(1, "none", 0.4), (2, "none", 0.4), (2, "sge_g32", 1.25)]:
        store.add_entry(PHONE, HOST, stage, attention, latency(ratio))
    store.add_entry(KEYS[2], HOST, 1, "none", latency(0.4))
    return url


def front(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> tuple[list[dict[str, Any]], str]:
    assert _run(["front", "s", "--storage", url, "--format", "json", *arguments]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_the_front_on_another_device(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On the CPU all four are on it; on the phone SE is slower than SGE and less accurate, and of GC nothing is known."""
    here, note = front(capsys, url)
    assert [m["placement"] for m in here] == [PLAIN, SE, SGE, GC] and note == ""
    there, _ = front(capsys, url, "--device", PHONE)
    assert [(m["placement"], m["latency_ratio"], m["latency_method"]) for m in there] == [
        (PLAIN, 1.0, "table"),
        (SGE, pytest.approx(1.1), "table"),
    ]
    assert {m["placement"]: m["accuracy"] for m in there} == {PLAIN: 0.5, SGE: 0.9}  # the same trained proxies
    assert all(m["latency_exclusive"] for m in there)


def test_what_has_no_latency_there_is_noted_on_stderr(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, note = front(capsys, url, "--device", PHONE)
    assert note.count("\n") == 1
    assert note.startswith("note: 1 placement") and f"no latency on that device, such as {GC}" in note
    assert note.endswith("fill its table by `nasattn latency --space SPACE --storage URL` there\n")
    _, note = front(capsys, url, "--device", KEYS[2])
    assert note.startswith(f"note: 3 placements have no latency on that device, such as {SE}")
    _, note = front(capsys, url, "--device", KEYS[0])
    assert note == ""


@pytest.mark.parametrize("part", ["onnxruntime-1.31.1 | batch 1", "PHONE | onnxruntime-1.31.1 | BATCH 1"])
def test_a_part_of_the_key_is_enough(url: str, capsys: pytest.CaptureFixture[str], part: str) -> None:
    assert front(capsys, url, "--device", part) == front(capsys, url, "--device", PHONE)
    assert front(capsys, url, "--device", "cpu") == front(capsys, url)  # what the study was searched on


def test_every_format_is_of_that_device(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = read(capsys, "front", "s", "--storage", url, "--device", PHONE)
    assert SGE in table and SE not in table
    rows = list(csv.DictReader(io.StringIO(read(capsys, "front", "s", "--storage", url, "--device", PHONE, "--format", "csv"))))
    assert [row["placement"] for row in rows] == [PLAIN, SGE]


def test_a_device_that_is_not_known(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    way_out = ": give one of them, or a part that fits it alone"
    assert (
        refused(capsys, "front", "s", "--storage", url, "--device", "tpu") == f"no device key 'tpu': there are {'; '.join(KEYS)}{way_out}"
    )
    told = refused(capsys, "front", "s", "--storage", url, "--device", "phone")
    assert told == f"'phone' fits 2 device keys: there are {KEYS[1]}; {KEYS[2]}{way_out}"
    assert refused(capsys, "front", "t", "--storage", url, "--device", PHONE).startswith("no study 't'")


def test_the_front_of_a_study_without_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    Store(url).add_study(StudyRecord("s", make_config({"space": "resnet18_stages"}).to_dict(), {}, 0))
    told = refused(capsys, "front", "s", "--storage", url, "--device", "cpu")
    assert told == "no latency of nasattn_resnet18 is measured in this database: fill it with `nasattn latency --space SPACE --storage URL`"


def test_the_api_says_the_same(url: str) -> None:
    study = nasattn.open_study("s", url)
    assert [m.placement for m in study.front(device=PHONE)] == [PLAIN, SGE]
    assert study.without_latency(PHONE) == [GC]
    assert study.without_latency(KEYS[0]) == []
    assert study.best(device=PHONE).placement == SGE
    assert study.best(max_latency="1.05x", device=PHONE).placement == PLAIN
    assert study.best().placement == GC
    with pytest.raises(StudyError, match="no device key 'tpu'"):
        study.front(device="tpu")
    with pytest.raises(StudyError, match="the fastest is none,none,none,none with 1.000x"):
        study.best(max_latency="0.5x", device=PHONE)


def test_what_was_shared_is_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    Store(url).add_latency(PHONE, HOST, SGE, latency(3.0))
    there, _ = front(capsys, url, "--device", PHONE)
    assert {m["placement"]: (m["latency_method"], m["latency_exclusive"]) for m in there} == {
        PLAIN: ("table", True),
        SE: ("pair", False),
        SGE: ("pair", True),
    }
