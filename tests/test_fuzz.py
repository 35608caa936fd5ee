"""Whatever a file, a flag or a folder holds: it works, or one line says what is wrong; soon, and nothing else is written."""

from __future__ import annotations

import contextlib
import copy
import datetime
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import timm
import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from nasattn.attention import Attention, Placement
from nasattn.cli import _run
from nasattn.errors import LONGEST, NasattnError, TaskError, UsageError
from nasattn.hosts import get_host
from nasattn.proxy.recipe_file import read_recipe_file
from nasattn.search.limits import UNITS, Limit
from nasattn.search.study import make_config, parse_duration, read_study_file
from nasattn.space import load_space
from nasattn.storage_url import check_storage
from nasattn.tasks import Split, TaskRequest, load_task

T = TypeVar("T")
SECONDS = 10.0  # of the processor that an example may take
MANY = 20  # times as many examples where there is time

SPACE = {
    "host": "nasattn_resnet18",
    "description": "a small one",
    "stages": {1: {"none": None, "sge": {"groups": [8, 16]}}, "all": {"none": None, "ela_t": None, "lka": {"kernel": [7], "dilation": [2, 3]}, "se": {"blocks": ["last"]}}},
}  # fmt: skip
FIDELITY = {"width": 0.25, "blocks": 1, "stem_stride": 2, "resolution": 32, "samples": 100, "val_samples": 50, "epochs": 2, "rungs": 2}
RECIPE = {
    "batch_size": 32,
    "lr": 0.01,
    "weight_decay": 0.01,
    "schedule": "warmup-stable-decay",
    "warmup": 0.1,
    "flip": True,
    "dihedral": True,
    "crop": 2,
    "plain_epochs": 1,
    "pretrained": "",
    "label_smoothing": 0.1,
}
STUDY = {
    "study": "one", "description": "a study", "task": "digits", "trials": 12, "time_budget": "30m", "compute_budget": "2h", "plateau": 5, "certify": 0.2,
    "sampler": "tpe", "halving": True, "max_latency": "1.3x", "max_params": "30M", "max_macs": "5G", "max_memory": "200MB", "device": "cpu",
    "deployment": {"batch": 2, "resolution": 64, "dtype": "float32", "threads": 1, "channels_last": False}, "runtime": "eager", "latency_seconds": 1.5,
    "workers": 2, "gpus_per_trial": 0.5, "seed": 3, "fidelity": FIDELITY, "recipe": RECIPE,
}  # fmt: skip

WORDS = st.sampled_from(
    [
        "",
        "none",
        "sge",
        "any",
        "all",
        "every",
        "1",
        "-1",
        "1e3",
        "../../x",
        "/etc/passwd",
        "a\0b",
        "\n",
        "\x1b[2J",
        "~",
        "digits",
        "torch/x",
        "hfds/",
        "x" * 5_000,
        "é",
        "\u202e",
    ]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.sampled_from([10**9 + 1, 10**30, -(2**63)]), st.floats(), WORDS, st.text(max_size=12), st.binary(max_size=4),
    st.sampled_from([datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, 3, 4)]),
)  # fmt: skip
JUNK = st.one_of(SCALARS, st.lists(SCALARS, max_size=4), st.dictionaries(st.one_of(WORDS, st.integers(0, 9)), SCALARS, max_size=3))


def told(read: Callable[[], T]) -> T | None:
    """What *read* gives, or None where it says in one line what is wrong."""
    begun = time.process_time()
    try:
        result = read()
        event("works")
        return result
    except NasattnError as error:
        event(f"refused: {type(error).__name__}")
        message = str(error)
        assert isinstance(error, UsageError) and message and message.isprintable() and len(message) <= LONGEST + 10
        return None
    finally:
        assert time.process_time() - begun < SECONDS


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a nested document but itself."""
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """*document* with one value, key or entry that is another."""
    document = copy.deepcopy(document)
    *path, last = draw(st.sampled_from(list(places(document))))
    holder: Any = document
    for key in path:
        holder = holder[key]
    how = draw(st.sampled_from(["replace", "replace", "remove", "rename", "add", "repeat"]))
    if how == "remove":
        del holder[last]
    elif how == "rename" and isinstance(holder, dict):
        holder[draw(st.one_of(WORDS, st.integers(0, 9), st.text(max_size=5)))] = holder.pop(last)
    elif how == "add" and isinstance(holder, dict):
        holder[draw(WORDS)] = draw(JUNK)
    elif how == "repeat" and isinstance(holder, list):
        holder.extend(holder * draw(st.integers(1, 3)))
    else:
        holder[last] = draw(JUNK)
    return document


@st.composite
def spliced(draw: st.DrawFn, content: bytes) -> bytes:
    """*content* with some bytes in a place replaced by others, or its end missing."""
    start = draw(st.integers(0, len(content)))
    end = draw(st.one_of(st.integers(start, min(len(content), start + 40)), st.just(len(content))))
    return content[:start] + draw(st.binary(max_size=30)) + content[end:]


def yaml_files(document: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Nearly always a file that means something, and sometimes any bytes."""
    text = yaml.safe_dump(document, sort_keys=False).encode()
    dumped = mutated(document).map(lambda d: yaml.safe_dump(d, sort_keys=False).encode())
    return st.one_of(dumped, dumped, dumped, spliced(text), st.text(max_size=60).map(str.encode), st.binary(max_size=60))


def fuzz(examples: int, **strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of so many examples, the same in every run."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
        limited = settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=checks)
        return limited(given(**strategies)(test))

    return decorate


@contextlib.contextmanager
def only_file(content: bytes, name: str = "file.yaml") -> Iterator[Path]:
    """A folder with one file, in which nothing else may be written."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        yield file
        assert list(Path(folder).iterdir()) == [file] and file.read_bytes() == content


def check_space(content: bytes) -> None:
    with only_file(content) as file:
        space = told(lambda: load_space(file))
        assert space is None or (space.size >= 1 and str(file) in space.source)


def check_study(content: bytes) -> None:
    with only_file(b"space: space.yaml\n" + content) as file:
        settings_read = told(lambda: read_study_file(file))
        if settings_read is not None:
            settings_read["space"] = SMALL
            config = told(lambda: make_config(settings_read, f"{file}: "))
            assert config is None or config.name


def check_recipe(content: bytes) -> None:
    with only_file(content) as file:
        told(lambda: read_recipe_file(file))


SMALL = ""


@pytest.fixture(scope="module", autouse=True)
def small_space(tmp_path_factory: pytest.TempPathFactory) -> None:
    global SMALL
    file = tmp_path_factory.mktemp("space") / "space.yaml"
    file.write_text(yaml.safe_dump(SPACE, sort_keys=False))
    SMALL = str(file)


TOKEN_WORDS = st.sampled_from(
    [
        "none",
        "sb",
        "sge",
        "ela",
        "lka",
        "fsla",
        "se",
        "eca",
        "g32",
        "g0",
        "k7",
        "d2",
        "c49",
        "t",
        "b",
        "s",
        "l",
        "_",
        "@",
        "@last",
        "@b01",
        "@mid",
        "@shared",
        ",",
        "9" * 7,
        "٣",
        "\n",
        " ",
    ]
)
TOKENS = st.one_of(st.lists(TOKEN_WORDS, max_size=5).map("".join), st.lists(TOKEN_WORDS, max_size=4).map("_".join), st.text(max_size=15))


def check_token(token: str) -> None:
    attention = told(lambda: Attention.parse(token))
    if attention is not None:
        assert Attention.parse(str(attention)) == attention and str(Attention.parse(str(attention))) == str(attention)
        told(lambda: get_host("nasattn_resnet18").attention(attention, 2))


def check_placement(placement: Any) -> None:
    parsed = told(lambda: Placement.parse(placement))
    if parsed is not None:
        assert Placement.parse(str(parsed)) == parsed
        canonical = told(lambda: get_host("nasattn_resnet18").placement(parsed))
        assert canonical is None or get_host("nasattn_resnet18").placement(str(canonical)) == canonical


PLACEMENTS = st.one_of(st.lists(TOKENS, max_size=5).map(",".join), st.lists(st.one_of(TOKENS, SCALARS), max_size=5), JUNK)
AMOUNTS = st.one_of(
    st.tuples(st.one_of(st.floats().map(str), st.integers(-5, 10**12).map(str), st.text(max_size=4)), st.sampled_from(["x", "ms", "M", "", "GiB", "KB", "s", "h", " "])).map("".join),
    st.text(max_size=10),
)  # fmt: skip


def check_amount(cost: str, text: str) -> None:
    limit = told(lambda: Limit.parse(cost, text))
    if limit is not None:
        assert Limit.parse(cost, str(limit)) == limit and 0 < limit.value < float("inf")
    seconds = told(lambda: parse_duration(text))
    assert seconds is None or 0 < seconds < float("inf")


URL_PARTS = st.sampled_from(
    ["sqlite", "postgresql", "+psycopg", "://", ":///", "/", "@", ":", "?", "password=", "x", "%40", "[", "]", "&", "=", "5432", "a.db"]
)


def check_url(url: str) -> None:
    assert told(lambda: check_storage(url)) in (None, url)


test_space_files = fuzz(250, content=yaml_files(SPACE))(check_space)
test_study_files = fuzz(250, content=yaml_files(STUDY))(check_study)
test_recipe_files = fuzz(150, content=yaml_files({"description": "d", "fidelity": FIDELITY, "recipe": RECIPE, "tuned": {"by": "hand"}}))(
    check_recipe
)
test_tokens = fuzz(250, token=TOKENS)(check_token)
test_placements = fuzz(150, placement=PLACEMENTS)(check_placement)
test_amounts = fuzz(200, cost=st.sampled_from(list(UNITS)), text=AMOUNTS)(check_amount)
test_urls = fuzz(150, url=st.lists(URL_PARTS, max_size=8).map("".join))(check_url)

test_many_space_files = pytest.mark.slow(fuzz(250 * MANY, content=yaml_files(SPACE))(check_space))
test_many_study_files = pytest.mark.slow(fuzz(250 * MANY, content=yaml_files(STUDY))(check_study))
test_many_tokens = pytest.mark.slow(fuzz(250 * MANY, token=TOKENS)(check_token))
test_many_placements = pytest.mark.slow(fuzz(150 * MANY, placement=PLACEMENTS)(check_placement))


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


IMAGES = st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "DDS", "PCX", "SGI"]).flatmap(
    lambda kind: spliced(encoded(kind))
)


def check_folder(content: bytes) -> None:
    """One image of a folder holds anything: its pixels are there, or it is named."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name) / "photos"
        patch.setenv("NASATTN_CACHE", str(Path(name) / "cache"))
        for split in ("train", "val"):
            for label in ("cat", "dog"):
                (folder / split / label).mkdir(parents=True)
                for i in range(2):
                    Image.new("L", (8, 8), 200).save(folder / split / label / f"{i}.png")
        odd = folder / "train/cat/odd.png"
        odd.write_bytes(content)
        before = sorted(folder.rglob("*"))
        task = told(lambda: load_task(str(folder), TaskRequest(8)))
        assert sorted(folder.rglob("*")) == before and odd.read_bytes() == content
        assert task is not None and isinstance(task.train, Split)
        assert task.skipped in ((), (str(odd),)) and len(task.train) == 5 - len(task.skipped)
        assert task.train.labels.tolist().count(1) == 2


test_image_folders = fuzz(40, content=IMAGES)(check_folder)
test_many_image_folders = pytest.mark.slow(fuzz(40 * MANY, content=IMAGES)(check_folder))


CONFIG = {
    "architecture": "nasattn_resnet18",
    "num_classes": 10,
    "label_names": ["a", "b"],
    "model_args": {"attn": "none,sge_g32,none,se"},
    "pretrained_cfg": {"tag": "untrained", "input_size": [3, 64, 64], "classifier": "fc"},
    "nasattn": {"study": "s", "trial": 1},
}


def check_config(attn: Any) -> None:
    """The placement of an exported folder's config.json is read by us: a model, or what is wrong with it. On the meta device nothing is allocated."""
    document = {**CONFIG, "model_args": {"attn": attn}}
    with only_file(json.dumps(document, default=str).encode(), "config.json") as file:
        model = told(lambda: timm.create_model(f"local-dir:{file.parent}", device="meta"))
        assert model is None or model.placement == str(get_host("nasattn_resnet18").placement(model.placement))


test_exported_placements = fuzz(30, attn=PLACEMENTS.filter(lambda p: p is not None))(check_config)


@fuzz(25, document=mutated({"pretrained_cfg": CONFIG["pretrained_cfg"], "label_names": ["a"], "nasattn": {"study": "s", "trial": 1}}))
def test_the_rest_of_an_exported_config(document: dict[str, Any]) -> None:
    """It is timm's to judge, in its own words; nothing is written, and where it is read it is the same model."""
    content = json.dumps({"architecture": "nasattn_resnet18", "model_args": CONFIG["model_args"], **document}, default=str)
    with only_file(content.encode(), "config.json") as file:
        try:
            model = timm.create_model(f"local-dir:{file.parent}", device="meta")
        except Exception as error:
            assert not isinstance(error, (MemoryError, RecursionError))
        else:
            assert model.placement == "none,sge_g32,none,se"


@fuzz(12, content=yaml_files(SPACE))
def test_the_command_line_says_it_in_one_line(content: bytes) -> None:
    with only_file(content) as file:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _run(["spaces", str(file), "--json"])
        assert (code, err.getvalue().count("\n")) in ((0, 0), (2, 1))
        assert code == 2 or json.loads(out.getvalue())[0]["host"] == "nasattn_resnet18"


@fuzz(
    12,
    arguments=st.lists(
        st.one_of(st.sampled_from(["--space", "--trials", "--seed", "--max-latency", "--task", "--dry-run", "--nothing"]), WORDS),
        max_size=4,
    ),
)
def test_flags_of_a_search(arguments: list[str]) -> None:
    """Without a space there is no search."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = _run(["search", *(a for a in arguments if a != "--space")])
    assert (code, err.getvalue().count("\n")) == (2, 1) or "--help" in arguments


def test_a_folder_of_nothing_but_junk(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(4):
                (tmp_path / split / label / f"{number}.png").write_bytes(b"junk")
    with pytest.raises(TaskError, match="cannot be decoded: 8 of 8, at most 1 may be left out"):
        load_task(str(tmp_path), TaskRequest(8))
