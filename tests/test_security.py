"""What a file, a database or a name may not do: run code, fill the memory, write elsewhere, or show a password."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import timm
import torch
from PIL import Image

import nasattn
from nasattn.api import default_storage, measure_latency
from nasattn.cli import _run
from nasattn.config import MOST_BYTES
from nasattn.errors import LONGEST, NasattnError, SpaceError, StorageError, StudyError, UsageError
from nasattn.proxy import Checkpoints, Fidelity, ProxyJob, Recipe, build_proxy
from nasattn.proxy.recipe_file import read_recipe_file
from nasattn.search.study import make_config, read_study_file
from nasattn.space import load_space
from nasattn.storage_url import check_storage
from nasattn.store import Store, StudyRecord
from nasattn.tasks import TaskRequest, load_task

PACKAGE = Path(nasattn.__file__).parent


class Evil:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.trace),))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def test_the_trace_is_left(trace: Path) -> None:
    pickle.loads(pickle.dumps(Evil(trace)))
    assert trace.is_dir()


def write_weights(file: Path, kind: str, trace: Path) -> Path:
    if kind == "a pickle":
        file.write_bytes(pickle.dumps(Evil(trace)))
    elif kind == "an object among weights":
        torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "more": Evil(trace)}, file)
    elif kind == "an old file with an object":
        torch.save({"more": Evil(trace)}, file, _use_new_zipfile_serialization=False)
    elif kind == "a list":
        torch.save([torch.zeros(2)], file)
    elif kind == "others' weights":
        torch.save({"fc.weight": "no tensor"}, file)
    else:
        file.write_bytes({"nothing": b"", "text": b"these are no weights\n", "half a zip": b"PK\x03\x04" + bytes(60)}[kind])
    return file


KINDS = ["a pickle", "an object among weights", "an old file with an object", "a list", "others' weights", "nothing", "text", "half a zip"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_pretrained_weights_run_nothing(tmp_path: Path, trace: Path, kind: str, suffix: str) -> None:
    file = write_weights(tmp_path / f"weights.{suffix}", kind, trace)
    job = ProxyJob("nasattn_resnet18", "none,none,none,none", Fidelity(width=1), Recipe(pretrained=str(file)))
    with pytest.raises(UsageError) as caught:
        build_proxy(job, 2)
    message = str(caught.value)
    assert message.startswith(f"the pretrained weights {str(file)!r} cannot be used for nasattn_resnet18: ") and message.isprintable()
    assert message.endswith("; give a checkpoint file of the plain model, or one of timm's tags for it")
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["a pickle", "an object among weights", "an old file with an object"])
def test_an_exported_folder_runs_nothing(tmp_path: Path, trace: Path, kind: str) -> None:
    """Whoever got such a folder from others loads it by timm, which our hosts are registered with."""
    (tmp_path / "config.json").write_text('{"architecture": "nasattn_resnet18", "num_classes": 2, "pretrained_cfg": {}}')
    write_weights(tmp_path / "pytorch_model.bin", kind, trace)
    with pytest.raises(Exception, match=r"."):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["a pickle", "an object among weights", "an old file with an object"])
def test_a_checkpoint_runs_nothing(tmp_path: Path, trace: Path, kind: str) -> None:
    write_weights(tmp_path / "identity.pt", kind, trace)
    assert Checkpoints(tmp_path).load("identity") is None
    assert not trace.exists()


def test_cached_images_run_nothing(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASATTN_CACHE", str(tmp_path / "cache"))
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (9, 9)).save(tmp_path / "photos" / split / name / f"{i}.png")
    load_task(str(tmp_path / "photos"), TaskRequest(8))
    files = list((tmp_path / "cache").glob("*.npy"))
    assert files
    for file in files:
        np.save(file, np.array([Evil(trace)], dtype=object), allow_pickle=True)
    assert len(load_task(str(tmp_path / "photos"), TaskRequest(8)).train) == 4
    assert not trace.exists()


def test_no_column_of_the_database_is_a_pickle() -> None:
    from optuna.storages._rdb.models import BaseModel

    from nasattn.store.models import StudyRow

    for metadata in (StudyRow.metadata, BaseModel.metadata):
        columns = [column for table in metadata.tables.values() for column in table.columns]
        assert len(columns) > 20
        assert not [c for c in columns if isinstance(c.type, (sa.PickleType, sa.LargeBinary))]


CALLS = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "eval", "exec", "compile", "os.system", "os.popen"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def forbidden(source: str) -> list[str]:
    """The calls and imports in *source* that could run what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            name, arguments = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            found += [name] * (name in CALLS or arguments.get("shell") == "True" or arguments.get("allow_pickle") == "True")
            found += [name] * (name == "torch.load" and arguments.get("weights_only") != "True")
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_in_the_package_runs_what_it_reads(file: Path) -> None:
    assert not forbidden(file.read_text())


def test_what_is_forbidden_is_found() -> None:
    source = "import pickle\nfrom cloudpickle import loads\nyaml.load(x)\neval(x)\ntorch.load(x)\nnp.load(x, allow_pickle=True)\nrun(x, shell=True)"
    assert forbidden(source) == ["pickle", "cloudpickle", "yaml.load", "eval", "torch.load", "np.load", "run"]


READERS = {
    "space": (load_space, SpaceError, "host: nasattn_resnet18\nstages: {}\n"),
    "study": (read_study_file, StudyError, "space: resnet18_stages\ndescription: {}\n"),
    "recipe": (read_recipe_file, UsageError, "tuned: {}\n"),
}
LAUGHS = "x: &a0 [ha, ha]\n" + "".join(f"a{i}: &a{i + 1} [*a{i}, *a{i}, *a{i}, *a{i}]\n" for i in range(40))
MERGES = "a0: &a0 {a: 1, b: 2}\n" + "".join(f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}, *a{i}], c{i}: 1}}\n" for i in range(40))
# content of the file, and what is said of it
CONTENTS = {
    "a call": ("{head}more: !!python/object/apply:os.mkdir [{trace}]\n", "could not determine a constructor"),
    "a new object": ("{head}more: !!python/object/new:os.mkdir [{trace}]\n", "could not determine a constructor"),
    "a name": ("{head}more: !!python/name:os.environ ''\n", "could not determine a constructor"),
    "a module": ("{head}more: !!python/module:this ''\n", "could not determine a constructor"),
    "another file": ("{head}more: !include /etc/passwd\n", "could not determine a constructor"),
    "laughs": ("{laughs}", "with its aliases written out it holds more than 20,000 values"),
    "merges": ("{merges}", "with its aliases written out it holds more than 20,000 values"),
    "a snake that bites its tail": ("more: &a [*a]\n", "an alias stands for something that it lies in"),
    "brackets": ("more: " + "[" * 100_000, "nested too deeply"),
    "braces": ("more: " + "{{a: " * 20_000, "nested too deeply"),
    "dashes": ("- " * 100_000, "nested too deeply"),
    "too much": ("more: [" + "1, " * 100_000 + "1]\n", "it is larger than 256 KiB"),
    "many values": ("more: [" + "1, " * 30_000 + "1]\n", "more than 20,000 values"),
    "digits": ("more: " + "9" * 5_000, "a number of more than 40 digits"),
    "sixties": ("more: " + "1:" * 50_000 + "1", "a number of more than 40 digits"),
    "a bool that is none": ("more: !!bool perhaps\n", "not valid YAML"),
    "a date that is none": ("more: 2024-13-01\n", "not valid YAML"),
    "a time that is none": ("more: !!timestamp soon\n", "not valid YAML"),
    "no text": ("\0\x07", "not valid YAML"),
    "a list as key": ("? [1, 2]\n: 3\n", "not valid YAML"),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("kind", READERS)
def test_yaml_files_only_say_something(tmp_path: Path, trace: Path, kind: str, content: str) -> None:
    """One line, soon, and nothing done."""
    read, error, head = READERS[kind]
    file, (text, expected) = tmp_path / "file.yaml", CONTENTS[content]
    file.write_text(text.format(head=head, trace=trace, laughs=LAUGHS, merges=MERGES))
    begun = time.process_time()
    with pytest.raises(error) as caught:
        read(file)
    assert time.process_time() - begun < 10
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and expected in message and message.isprintable() and len(message) <= LONGEST + 10
    assert list(tmp_path.iterdir()) == [file]


def test_a_long_file_that_is_allowed_is_read_soon(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("host: nasattn_resnet18\ndescription: " + "x" * (MOST_BYTES - 200) + "\nstages: {all: &a {none: , se: }, 2: *a}\n")
    begun = time.process_time()
    assert load_space(file).size == 16
    assert time.process_time() - begun < 10


def test_a_space_of_too_many_combinations_is_refused_soon(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(
        f"host: nasattn_resnet18\nstages: {{all: {{lka: {{kernel: {list(range(7, 2007))}, dilation: {list(range(1, 2001))}}}}}}}\n"
    )
    with pytest.raises(SpaceError, match="stages.all: 4,000,000 combinations of options; give fewer values, 20,000 combinations at most"):
        load_space(file)


def test_messages_are_one_printable_line() -> None:
    message = str(UsageError("one\ntwo\r\x1b[2J\x00 \u202e three" + "x" * 10_000 + " what to do"))
    assert message.startswith("one two \\x1b[2J\\x00 \\u202e threexxx") and message.endswith("xxx what to do")
    assert message.isprintable() and len(message) < LONGEST + 100
    assert pickle.loads(pickle.dumps(UsageError("a\nb"))).args == ("a b",)


SECRET, ENCODED = "s3cr:et/%", "s3cr%3Aet%2F%25"
URLS = [
    f"postgresql+psycopg://user:{ENCODED}@127.0.0.1:1/db",
    f"postgresql+psycopg://user:{ENCODED}@/db?host=/nowhere",
    f"postgresql+psycopg://user@127.0.0.1:1/db?password={ENCODED}",
    f"postgresql+psycopg://127.0.0.1:1/db?user=me&sslpassword={ENCODED}",
    f"postgresql+psycopg://user:not@{ENCODED}@127.0.0.1:1/db",
    f"postgresql+psycopg://user:{SECRET}@127.0.0.1:1/db",
    f"postgresql+psycopg://user:12/{ENCODED}@127.0.0.1:1/db",
    f"postgresql+psycopg://user:{ENCODED}@127.0.0.1:port/db",
    f"nodatabase://user:{ENCODED}@127.0.0.1/db",
    f"sqlite://user:{ENCODED}@/studies.db",
    f"sqlite:///studies.db?token={ENCODED}",
]
COMMANDS = [
    ["studies"], ["front", "s"], ["show", "s", "0"], ["export", "s", "--out", "out"], ["certify", "s"], ["dashboard"], ["proxy-report", "s"],
    ["tune-proxy", "s", "--seconds", "1", "--out", "r.yaml"], ["search", "--space", "resnet18_stages", "--task", "digits"],
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_no_command_shows_a_password(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _run([*command, "--storage", url])
        assert code == 2, command
        told = out.getvalue() + err.getvalue() + caplog.text
        assert err.getvalue().startswith("nasattn: ") and err.getvalue().count("\n") == 1
        assert not any(part in told for part in (SECRET, ENCODED, "s3cr", "%3Aet", "et%2F", "et/%"))
    assert not list(tmp_path.iterdir())


def test_a_password_that_would_be_shown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASATTN_STORAGE", f"postgresql+psycopg:///db?password={ENCODED}")
    with pytest.raises(StorageError, match="write it as USER:PASSWORD@HOST, or set PGPASSWORD"):
        default_storage()
    with pytest.raises(StorageError, match="write it as USER:PASSWORD@HOST, or set PGPASSWORD"):
        measure_latency("nasattn_resnet18", "se,none,none,none", storage=os.environ["NASATTN_STORAGE"])
    for url in ("sqlite:///a@b.db", "sqlite://", "sqlite:////a/b?timeout=3", "postgresql://user:p%40w@host/db?sslmode=require", "no url"):
        assert check_storage(url) == url
    with pytest.raises(StorageError, match="three slashes before the path"):
        check_storage("sqlite://studies.db")


def test_what_a_database_says_is_only_shown(tmp_path: Path) -> None:
    """Its names are neither markup nor commands to the terminal, and a damaged record is said to be one."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    store, name = Store(url), "[/red][link=http://evil]\x1b[2J../../x"
    store.add_study(StudyRecord(name, {}, {}, 0))
    store.add_study(
        StudyRecord("other", {"space": {}, "space_name": "s", "task": "t", "fidelity": {}, "recipe": {}, "device": "cpu", "seed": 0}, {}, 0)
    )
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert _run(["studies", "--storage", url]) == 0
    assert "[/red][link=http://evil]\\x1b[2J../../x" in out.getvalue() and "\x1b" not in out.getvalue()
    for study, wrong in ((name, "space_name, space, task, fidelity, recipe, device, seed"), ("other", "space.host")):
        for command in (["front", study], ["show", study, "0"], ["export", study, "--out", str(tmp_path / "out")]):
            err = io.StringIO()
            with contextlib.redirect_stderr(err):
                assert _run([*command, "--storage", url]) == 2
            assert f"is damaged: wrong or missing is {wrong}; use a copy" in err.getvalue() and "\x1b" not in err.getvalue()
    assert not (tmp_path / "out").exists()


def test_a_study_has_a_name_that_can_be_printed() -> None:
    with pytest.raises(UsageError, match="characters that cannot be printed"):
        make_config({"space": "resnet18_stages", "study": "a\x1b[2Jb"})


def test_errors_are_of_one_family() -> None:
    assert all(issubclass(kind, NasattnError) for kind in (StorageError, StudyError, SpaceError, UsageError))
