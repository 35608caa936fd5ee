"""What README and the site's pages show is so: commands, options, settings, code, links and pictures."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from nasattn import cli
from nasattn.attention import token
from nasattn.search import driver
from nasattn.search.study import STUDY_KEYS, make_config, read_study_file
from nasattn.store import Store
from tests.command_lines import commands, read
from tests.image_folders import fill_classes
from tests.made_study import make_study
from tests.test_export import records

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
GENERATED = {"docs/reference/cli.md", "docs/reference/api.md"}
STUDY = "resnet50_stages-cued_digits-s0"  # the study that the pages' Python opens


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """The page's blocks in *language*, each with the number of its first line; those that are a file of a plugin are not among them."""
    found = re.finditer(rf"^(?P<file><!-- file: \S+ -->\n)?```{language}\n(?P<code>.*?)^```", TEXTS[page], re.DOTALL | re.MULTILINE)
    return [(TEXTS[page].count("\n", 0, m.start("code")) + 1, m["code"]) for m in found if not m["file"]]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks.py, which writes the generated pages."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with what the pages name: images, files of settings, a study in the usual database, an exported model."""
    folder = tmp_path_factory.mktemp("reader")
    fill_classes(folder / "path/to/images", bars=12, stripes=12)
    for page in PAGES:
        for _, code in blocks(page, "yaml"):
            data = yaml.safe_load(code)
            name = "my_space.yaml" if "stages" in data else "recipe.yaml" if "space" not in data and "host" not in data else "study.yaml"
            (folder / name).write_text(code)
    (folder / "recipe.yaml").write_text("recipe: {lr: 0.01}\n")
    make_study(f"sqlite:///{folder}/nasattn.db", name=STUDY)
    from nasattn.export import export_placement

    export_placement(*records(), None, folder / "model")
    return folder


@pytest.fixture
def there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that folder as the working folder, and attentions that are registered meanwhile forgotten again."""
    copy = shutil.copytree(folder, tmp_path / "work", ignore=shutil.ignore_patterns("model"))
    (copy / "model").symlink_to(folder / "model")
    monkeypatch.chdir(copy)
    monkeypatch.delenv("NASATTN_STORAGE", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # some pages speak of a GPU
    before = dict(token._REGISTRY)
    yield copy
    token._REGISTRY.clear()
    token._REGISTRY.update(before)


def app_commands() -> dict[str, Any]:
    """Every command of the app by its name; a group's as ``group command``."""

    def walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, f"{prefix}{name} ")
            else:
                yield prefix + name, command

    return dict(walk(typer.main.get_command(cli.app), ""))


@pytest.mark.parametrize("name", app_commands())
def test_the_reference_has_every_command_and_option(hooks: ModuleType, name: str) -> None:
    command = app_commands()[name]
    parts = re.split(r"^## nasattn (.+?) \{.*\}$", hooks.cli_reference(), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    section = sections[name]
    for parameter in command.params:
        names = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "argument":
            names = [str(parameter.name)]
        for each in names:
            assert each.lower() in section.lower(), f"{each} of nasattn {name}"
        assert getattr(parameter, "help", None), f"{names[0]} of nasattn {name} has no help"
    examples = hooks.examples(command)
    assert examples, f"nasattn {name} has no example"
    assert read(examples[0])[0] == name
    for example in examples:
        read(example.partition(" > ")[0])


def all_commands() -> list[tuple[str, str]]:
    return [(page, command) for page in PAGES for command in commands(TEXTS[page])]


@pytest.mark.parametrize(("page", "command"), all_commands())
def test_every_command_of_a_page_is_one(there: Path, page: str, command: str) -> None:
    name, arguments = read(command)
    settings = {key: value for key, value in arguments.items() if key in STUDY_KEYS}
    if name == "search":
        make_config(settings)
    elif name == "run":
        file = Path(arguments["file"])
        path = file if file.is_file() else ROOT / "studies" / f"{file}.yaml"
        make_config({**read_study_file(path), **{key: value for key, value in settings.items() if value is not None}})
    elif name == "spaces" and arguments["name"]:
        from nasattn.space import load_space

        load_space(arguments["name"])


def test_a_wrong_command_is_seen() -> None:
    page = "```bash\nuv run nasattn search --spaces resnet50_stages   # so\n```\n"
    (command,) = commands(page)
    assert command == "nasattn search --spaces resnet50_stages"
    with pytest.raises(Exception, match="--spaces"):
        read(command)


@pytest.mark.parametrize(("page", "line", "code"), [(page, *block) for page in PAGES for block in blocks(page, "yaml")])
def test_every_yaml_block_loads(there: Path, page: str, line: int, code: str) -> None:
    from nasattn.proxy.recipe_file import read_recipe_file
    from nasattn.space import load_space

    file = there / "block.yaml"
    file.write_text(code)
    data = yaml.safe_load(code)
    if "stages" in data:
        assert load_space(file).size > 1
    elif "space" in data or "host" in data:
        make_config(read_study_file(file), f"{page}:{line}: ")
    else:
        read_recipe_file(file)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs(there: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From top to bottom, as a reader would type it; where it searches, a study is there at once."""

    def searched(config: Any, storage: str, **_: Any) -> driver.SearchResult:
        if Store(storage).find_study(config.name) is None:
            make_study(storage, name=config.name)
        return driver.SearchResult(config.name, storage, [], [], True, "made", 0.0, 0.0)

    monkeypatch.setattr(driver, "run_search", searched)
    names: dict[str, Any] = {"__name__": "page"}
    for line, code in blocks(page, "python"):
        exec(compile("\n" * (line - 1) + code, page, "exec"), names)


def test_a_printed_output_is_what_the_command_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks below ``<!-- output: nasattn ... -->``."""
    monkeypatch.setenv("COLUMNS", "140")
    shown = [
        m
        for text in TEXTS.values()
        for m in re.findall(r"<!-- output: nasattn (.+?) -->\n```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]
    assert shown
    for arguments, expected in shown:
        assert cli._run(arguments.split()) == 0
        printed = capsys.readouterr().out
        assert [line.rstrip() for line in printed.strip().splitlines()] == [line.rstrip() for line in expected.strip().splitlines()]


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_and_pictures_exist(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https://[\w.-]+\.\w+(/|$)", target):
            continue
        path, _, anchor = target.partition("#")
        file = os.path.relpath((ROOT / page).parent / path, ROOT) if path else page
        if file in GENERATED:
            continue
        assert (ROOT / file).exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors((ROOT / file).read_text()), f"{page}: {target}"


def test_pictures_have_a_description() -> None:
    for page, text in TEXTS.items():
        assert not re.search(r"!\[\s*\]\(", text), page


@pytest.mark.parametrize(
    "name", sorted({m for p in (ROOT / "nasattn").rglob("*.py") for m in re.findall(r"\bNASATTN_[A-Z_]+\b", p.read_text())})
)
def test_every_variable_of_the_environment_is_on_a_page(name: str) -> None:
    assert any(name in text for text in TEXTS.values())


def test_no_page_names_the_machine_it_was_written_on() -> None:
    suffixes = {".md", ".yml", ".yaml", ".svg", ".txt", ".py", ".cff", ".toml"}
    files = [ROOT / f for f in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "mkdocs.yml", "pyproject.toml")]
    files += [p for p in (ROOT / "docs").rglob("*") if p.suffix in suffixes]
    for file in files:
        # an image for containers has folders of its own: /tmp/nasattn, /home/ray, /home/ubuntu
        found = re.search(r"(?<![\w.])/(work|root|Users)/\w|/home/(?!(?:ray|ubuntu)\b)\w|/tmp/(?!nasattn\b)\w", file.read_text())
        assert found is None, f"{file.name}: {found[0] if found else ''}"


def test_the_readme_is_short() -> None:
    assert TEXTS["README.md"].count("\n") < 200


def test_the_citation_has_what_its_format_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["type"] in ("software", "dataset")
    assert citation["authors"] and all(a.get("name") or a.get("family-names") for a in citation["authors"])
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
