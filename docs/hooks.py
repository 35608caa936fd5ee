"""What mkdocs takes from the code when it builds the site: the reference of the command line and that of the Python API.

No list of commands, options or names stands here: a new one is in the reference as soon as it is in the code.
"""

from __future__ import annotations

import importlib
import re
import textwrap
from types import ModuleType
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

CLI_PAGE, API_PAGE = "reference/cli.md", "reference/api.md"
EXAMPLES = re.compile(r"\s*Examples?:\s+(.*)\Z", re.DOTALL)  # the end of a command's help
RECORDS = (  # what the functions take and give, beside the package's own names
    "nasattn.front.FrontMember",
    "nasattn.store.records.EvaluationRecord",
    "nasattn.store.records.LatencyRecord",
    "nasattn.search.study.StudyConfig",
    "nasattn.proxy.fidelity.Fidelity",
    "nasattn.proxy.fidelity.Recipe",
    "nasattn.latency.deployment.Deployment",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages to the site."""
    files.append(File.generated(config, CLI_PAGE, content=cli_reference()))
    files.append(File.generated(config, API_PAGE, content=api_reference()))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name classes as Sphinx does, ``:class:`~a.b.C` ``: here the role is left out, and with a tilde the path."""
    html = re.sub(r":(?:class|func|meth|mod|attr|data):(?=<code>)", "", html)
    return re.sub(r"<code>~(?:\w+\.)*(\w+)</code>", r"<code>\1</code>", html)


def commands() -> dict[str, Any]:
    """Every command of the command line by its name, in the order of `nasattn --help`; those of groups as ``group command``."""
    from nasattn.cli import app

    return _commands_of(typer.main.get_command(app), "")


def _commands_of(group: Any, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if getattr(command, "hidden", False):
            continue
        if hasattr(command, "commands"):
            found |= _commands_of(command, f"{prefix}{name} ")
        else:
            found[f"{prefix}{name}"] = command
    return found


def examples(command: Any) -> list[str]:
    """The command lines at the end of a command's help, one an example."""
    match = EXAMPLES.search(command.help or "")
    return [line for part in match[1].splitlines() for line in part.strip().split("; then ") if line] if match else []


def described(command: Any) -> str:
    """A command's help without its examples, as paragraphs."""
    return EXAMPLES.sub("", textwrap.dedent(command.help or "")).strip()


def parameters(command: Any, name: str) -> list[tuple[str, str]]:
    """What a command takes, as its own help says it: ``("--format <table|json|csv>", "How to print it.  [default: table]")``."""
    context = command.make_context(name, [], resilient_parsing=True)
    records = (p.get_help_record(context) for p in command.params if not getattr(p, "hidden", False))
    return [record for record in records if record is not None]


def cli_reference() -> str:
    """The page of the command line, from the commands themselves."""
    known = commands()
    lines = ["# Command line", "", "Made from the commands themselves; `nasattn COMMAND --help` prints the same.", ""]
    lines += ["| command | |", "|---|---|"]
    lines += [f"| [`{name}`](#nasattn-{name.replace(' ', '-')}) | {_cell(_sentence(described(c)))} |" for name, c in known.items()]
    lines += [
        "",
        "Exit codes: 0 done, 1 the work failed, 2 wrong usage. Every error is one line: what was got, what is allowed, what to do.",
    ]
    for name, command in known.items():
        lines += ["", f"## nasattn {name} {{ #nasattn-{name.replace(' ', '-')} }}", "", described(command)]
        if given := examples(command):
            lines += ["", "```bash", *given, "```"]
        if taken := parameters(command, name):
            lines += ["", "| argument or option | |", "|---|---|"]
            lines += [f"| {_cell(f'`{what}`')} | {_cell(text)} |" for what, text in taken]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    """The first sentence."""
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def _cell(text: str) -> str:
    """*text* inside a table's cell, where what is not code keeps its stars, brackets and bars."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(p if p.startswith("`") else re.sub(r"([*_<>|\[\]])", r"\\\1", p) for p in parts)


def api_names() -> dict[str, str]:
    """Every public name, ``nasattn.search``, and where its docstring stands, ``nasattn.api.search``."""
    import nasattn

    return {f"nasattn.{name}": _home(name, getattr(nasattn, name)) for name in sorted(nasattn.__all__, key=str.lower)}


def _home(name: str, found: Any) -> str:
    if isinstance(found, ModuleType):  # a submodule that is called like a function of the API
        return f"nasattn.api.{name}"
    return f"{found.__module__}.{found.__qualname__}"


def api_reference() -> str:
    """The page of the Python API: directives that mkdocstrings fills in."""
    sampling = importlib.import_module("nasattn.search.sampling")
    samplers = [f"nasattn.search.sampling.{name}" for name in sampling.__all__] + ["nasattn.search.tune_scheduler.ParetoHalving"]
    sections = {
        "The package": ("Importing `nasattn` is cheap: torch, timm, Optuna and Ray are imported by what needs them.", api_names().values()),
        "Samplers and a scheduler": ("For any Optuna study, and for Ray Tune.", samplers),
        "Records and settings": ("What the functions above take and give.", RECORDS),
    }
    lines = ["# Python API", ""]
    for title, (text, names) in sections.items():
        lines += [f"## {title}", "", text, ""]
        lines += [line for name in names for line in (f"::: {name}", "")]
    return "\n".join(lines)
