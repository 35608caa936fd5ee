"""The command line as a user meets it: exit codes, one line for each mistake, and a small real search read back by every command."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nasattn.cli import _run

STUDY_FILE = """
space: {space}
task: digits
study: small
trials: 3
sampler: local
fidelity: {{samples: 200, val_samples: 100, resolution: 24, epochs: 1}}
"""
SPACE = "host: nasattn_resnet18\nstages: {1: {none: , sge: {groups: [16, 32]}}, 2: {none: , ela_t: }, 3: {none: }, 4: {none: }}"
FIELDS = {
    "trial", "placement", "accuracy", "accuracy_sd", "seeds", "latency_ms", "latency_ratio", "latency_ratio_low",
    "latency_ratio_high", "params", "macs", "tier", "p_member",
}  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A small search, run by the command line in a process of its own: its database and folder."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "space.yaml").write_text(SPACE)
    (folder / "study.yaml").write_text(STUDY_FILE.format(space=folder / "space.yaml"))
    url = f"sqlite:///{folder / 'studies.db'}"
    done = subprocess.run(
        [sys.executable, "-m", "nasattn", "run", str(folder / "study.yaml"), "--storage", url],
        capture_output=True, text=True, timeout=300, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    (folder / "stderr.txt").write_text(done.stderr)
    return url, folder


def test_a_search_that_is_piped_prints_the_front_and_beside_it_a_line_a_trial(searched: tuple[str, Path]) -> None:
    progress = (searched[1] / "stderr.txt").read_text().splitlines()
    assert progress[0].startswith("study small in sqlite:///")
    assert [line[:5] for line in progress[1:4]] == ["[1/3]", "[2/3]", "[3/3]"]
    assert "none,none,none,none: accuracy" in "\n".join(progress)
    lines = (searched[1] / "stdout.txt").read_text().splitlines()
    assert lines[0].strip() == "Front of small"
    assert lines[-1] == "Export the best: nasattn export small --best --out DIR"
    assert not any("ray" in line.lower() for line in [*lines, *progress])


def test_a_search_leaves_a_log(searched: tuple[str, Path]) -> None:
    logs = [f.read_text() for f in Path(os.environ["NASATTN_LOGS"]).glob("*-search-small-*.log")]
    progress = (searched[1] / "stderr.txt").read_text().splitlines()
    assert any(all(line in text for line in progress) for text in logs)


def test_optuna_sees_the_study(searched: tuple[str, Path]) -> None:
    study = optuna.load_study(study_name="small", storage=searched[0])
    assert study.metric_names == ["accuracy", "latency_ratio"]
    assert all(t.state is TrialState.COMPLETE for t in study.trials)
    assert all({"placement", "params_M", "macs_G"} <= set(t.user_attrs) for t in study.trials)


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert _run(list(arguments)) == 0
    return capsys.readouterr().out


def test_front_as_json_has_the_contracts_fields(searched: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    printed = read(capsys, "front", "small", "--format", "json", "--storage", searched[0])
    assert read(capsys, "front", "small", "--json", "--storage", searched[0]) == printed
    members = json.loads(printed)
    assert members and all(set(m) >= FIELDS for m in members)
    assert all(0 <= m["accuracy"] <= 1 and m["latency_ratio_low"] <= m["latency_ratio"] <= m["latency_ratio_high"] for m in members)
    assert all(m["tier"] == "provisional" and m["seeds"] == 1 and m["accuracy_sd"] is None for m in members)


def test_front_as_csv_and_table(searched: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(read(capsys, "front", "small", "--format", "csv", "--storage", searched[0]))))
    assert rows and set(rows[0]) >= FIELDS
    assert rows[0]["placement"] in read(capsys, "front", "small", "--storage", searched[0])


def test_studies_are_listed(searched: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (study,) = json.loads(read(capsys, "studies", "--storage", searched[0], "--json"))
    assert (study["study"], study["task"], study["trials"], study["complete"]) == ("small", "digits", 3, 3)
    assert "small" in read(capsys, "studies", "--storage", searched[0])


def test_show_tells_how_the_proxy_carries_the_placement(searched: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    trials = [json.loads(read(capsys, "show", "small", str(n), "--storage", searched[0], "--json")) for n in range(3)]
    assert trials[0]["placement"] == "none,none,none,none"
    assert all(t["state"] == "COMPLETE" and t["fidelity"]["epochs"] == 1 and len(t["curve"]) == 3 for t in trials)
    assert all("each group keeps its channels" in t["proxy placement"] for t in trials)
    assert "none,none,none,none" in read(capsys, "show", "small", "0", "--storage", searched[0])


def test_the_storage_comes_from_the_environment(
    searched: tuple[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASATTN_STORAGE", searched[0])
    assert "small" in read(capsys, "studies")


def test_the_dashboard_serves_the_study(searched: tuple[str, Path]) -> None:
    port = "18173"
    command = [sys.executable, "-m", "nasattn", "dashboard", "--port", port, "--storage", searched[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            assert f"http://127.0.0.1:{port}/" in server.stdout.readline()
            studies = json.loads(_fetch(f"http://127.0.0.1:{port}/api/studies"))
        finally:
            server.terminate()
    assert [s["study_name"] for s in studies["study_summaries"]] == ["small"]


def _fetch(address: str) -> str:
    import time

    for _ in range(60):
        try:
            with urllib.request.urlopen(address, timeout=5) as response:
                return str(response.read().decode())
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{address} does not answer")


def test_spaces_and_attentions(capsys: pytest.CaptureFixture[str]) -> None:
    spaces = {s["space"]: s for s in json.loads(read(capsys, "spaces", "--json"))}
    assert spaces["resnet50_stages"]["placements"] == 17**4
    assert "lka_k21_d3" in spaces["resnet50_stages"]["stages"]["1"]
    assert "sge_g64" in read(capsys, "spaces", "resnet50_stages")
    assert {"nasattn_resnet50", "van_b0", "boat_swin_tiny"} <= set(read(capsys, "hosts").splitlines())
    assert "@mid 64 x3" in read(capsys, "hosts", "nasattn_resnet50")
    described = json.loads(read(capsys, "hosts", "nasattn_mobilenetv3_large_100", "--json"))
    assert described["native"] == "none,none,se,se@b000011,se"
    assert described["stages"][1]["channels"] == {"mid": [64, 72], "out": [24, 24]}
    tokens = {a["token"]: a for a in json.loads(read(capsys, "attentions", "--json"))}
    assert list(tokens)[:3] == ["none", "sb", "sge_g64"]
    assert tokens["ela_l"]["params_at_256"] == 58 * 256
    assert "2202.09741" in read(capsys, "attentions")


def test_studies_before_the_first_search(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NASATTN_STORAGE", raising=False)
    text = read(capsys, "studies")
    assert "no study yet" in text and "quickstart" in text


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(SPACE)
    plan = json.loads(read(capsys, "search", "--space", "mine.yaml", "--task", "digits", "--dry-run", "--json"))
    assert plan["study"] == "mine-digits-s0"
    assert [f.name for f in tmp_path.iterdir()] == ["mine.yaml"]


def test_latency_of_one_placement(capsys: pytest.CaptureFixture[str]) -> None:
    figures = json.loads(read(capsys, "latency", "nasattn_resnet18", "none,none,none,eca", "--json"))
    assert figures["ratio_low"] <= figures["ratio"] <= figures["ratio_high"]
    assert figures["ms"] > 0 and "224 px" in figures["device"]


MISTAKES: list[tuple[list[str], str]] = [
    (["search", "--space", "resnet50_stage"], "Did you mean 'resnet50_stages'"),
    (["search"], "--space is missing"),
    (["search", "--space", "missing.yaml"], "no file missing.yaml"),
    (["search", "--space", "resnet18_stages", "--trials", "0"], "trials must be an integer >= 1"),
    (["search", "--space", "resnet18_stages", "--trials", "many"], "valid integer"),
    (["search", "--space", "resnet18_stages", "--sampler", "tp"], "Did you mean 'tpe'"),
    (["search", "--space", "resnet18_stages", "--max-latency", "fast"], "1.3x or a time such as 12ms"),
    (["search", "--space", "resnet18_stages", "--time-budget", "soon"], "such as 30m"),
    (["search", "--space", "resnet18_stages", "--task", "cued_digit"], "Did you mean 'cued_digits'"),
    (["search", "--space", "resnet18_stages", "--storage", "sqlite:////no/such/folder/x.db"], "unable to open database file"),
    (["search", "--space", "resnet18_stages", "--storage", "nonsense"], "not a database URL"),
    (["run", "nothing"], "unknown name 'nothing' in studies"),
    (["front", "x", "--storage", "sqlite:///absent.db"], "run `nasattn search` first"),
    (["front"], "Missing argument"),
    (["bogus"], "No such command 'bogus'"),
    (["spaces", "nope"], "allowed: boat_swin_tiny_stages, cifar_resnet38_sb, convnext_tiny_stages,"),
    (["latency", "nasattn_resnet51", "none"], "Did you mean 'nasattn_resnet50'"),
    (["latency", "nasattn_resnet18", "none,ela"], "four variants"),
    (["latency", "nasattn_resnet18", "none,sge_g33,none,none"], "33 groups do not divide 128 channels"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("nasattn: ") and captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""


def test_mistakes_about_a_study(searched: tuple[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cases: list[tuple[list[Any], str]] = [
        (["front", "smal"], "Did you mean 'small'"),
        (["show", "small", "99"], "no trial 99: there are 0 to 2"),
        (["export", "small", "--max-latency", "0.1x", "--out", str(tmp_path / "e")], "no member of the front is within 0.1x"),
        (["export", "small", "--best", "--trial", "1", "--out", str(tmp_path / "e")], "exclude each other"),
        (["export", "small", "--out", str(searched[1])], "is not empty"),
        (["run", str(searched[1] / "study.yaml"), "--task", "cued_digits"], "task: 'digits' -> 'cued_digits'"),
    ]
    for arguments, message in cases:
        assert _run([*arguments, "--storage", searched[0]]) == 2, arguments
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_an_empty_image_folder_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    assert _run(["search", "--space", "resnet18_stages", "--task", "images"]) == 2
    error = capsys.readouterr().err
    assert "has no images; put them into" in error and error.count("\n") == 1


def test_latency_in_another_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    figures = json.loads(read(capsys, "latency", "nasattn_resnet18", "sge_g8,none,none,none", "--runtime", "onnxruntime", "--json"))
    assert "onnxruntime-" in figures["device"]
    assert figures["ratio_low"] <= figures["ratio"] <= figures["ratio_high"]
    assert _run(["latency", "nasattn_resnet18", "sge_g8,none,none,none", "--runtime", "onnx"]) == 2
    assert "Did you mean 'onnxruntime'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["search", "run", "front", "studies", "spaces", "hosts", "attentions", "show", "export", "dashboard", "latency", "report"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = read(capsys, command, "--help")
    assert "Usage:" in text
    assert all(len(line) > 20 for line in text.splitlines() if line.strip().startswith("--"))


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from nasattn.cli import _run; _run(['--help']); print([m for m in ('torch', 'ray', 'optuna', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_recipe_given_to_run_takes_the_place_of_the_files_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[dict[str, Any]] = []
    monkeypatch.setattr("nasattn.cli_search._search", lambda settings, *rest: taken.append(settings))
    (tmp_path / "study.yaml").write_text("space: resnet18_stages\ntask: digits\nfidelity: {epochs: 9}\n")
    assert _run(["run", str(tmp_path / "study.yaml")]) == 0
    assert _run(["run", str(tmp_path / "study.yaml"), "--recipe", "other.yaml"]) == 0
    assert taken[0]["fidelity"] == {"epochs": 9} and "recipe" not in taken[0]
    assert "fidelity" not in taken[1] and taken[1]["recipe"] == "other.yaml"
