"""The command line: one function a command, thin over the Python API. Exit codes: 0 done, 1 the work failed, 2 wrong usage."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasattn import cli_latency, cli_lists, cli_proxy, cli_report, cli_search, console, log, options
from nasattn.errors import NasattnError, UsageError

if TYPE_CHECKING:
    from nasattn.study import Study

app = typer.Typer(
    name="nasattn",
    help="Which attention, in which stage, is worth its latency?",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# of the click that typer brings with it: BadParameter's base
CLICK_USAGE_ERROR: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")


class Format(StrEnum):
    """Output formats of `front`."""

    table = "table"
    json = "json"
    csv = "csv"


app.command()(cli_search.search)
app.command()(cli_search.run)
app.command("certify")(cli_search.certify_study)


@app.command()
def front(
    study: options.StudyArgument,
    format: Annotated[Format | None, typer.Option("--format", help="How to print it. Default: table.")] = None,
    device: options.KeyOption = None,
    storage: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Print a study's front, fastest first. Example: nasattn front STUDY --format json"""
    from nasattn.report.tables import front_csv, front_table

    if as_json and format not in (None, Format.json):
        raise UsageError(f"--json and --format {format} exclude each other: give one of them")
    opened = _open(study, storage)
    placements = opened.placements(device)
    members = [p for p in placements if p.on_front]
    if device is not None and (unknown := opened.without_latency(device)):
        missing = f"{len(unknown)} placement{'s have' if len(unknown) > 1 else ' has'} no latency on that device, such as {unknown[0]}"
        print(f"note: {missing}: fill its table by `nasattn latency --space SPACE --storage URL` there", file=sys.stderr)
    if as_json or format is Format.json:
        print(json.dumps([m.to_dict() for m in members], indent=2))
    elif format is Format.csv:
        print(front_csv(members), end="")
    else:
        printer = console.out()
        printer.print(front_table(members, f"Front of {study}", printer.width))
        if device is None:  # latencies of another device are not those of the trials
            cli_search.print_honest(printer, placements)
        if opened.has_proxy_report and (report := opened.proxy_report()):
            from nasattn.report.agreement import verdict

            printer.print(f"Proxy: {verdict(report.agreement)}", highlight=False, soft_wrap=True)


app.command()(cli_lists.studies)
app.command()(cli_lists.spaces)
app.command()(cli_lists.hosts)
app.command()(cli_lists.attentions)


@app.command()
def show(
    study: options.StudyArgument,
    trial: Annotated[int, typer.Argument(help="Number of the trial.")],
    storage: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show one trial: placement, how its proxy carries it, curve, latency, error. Example: nasattn show STUDY 0"""
    from nasattn.report.tables import trial_details

    opened = _open(study, storage)
    details = trial_details(opened.record, opened.trial(trial))
    print(json.dumps(details, indent=2, default=str)) if as_json else console.print_pairs(details)


@app.command()
def export(
    study: options.StudyArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    trial: Annotated[int | None, typer.Option("--trial", help="This trial.")] = None,
    max_latency: Annotated[str | None, typer.Option("--max-latency", help="The most accurate within 1.2x or 12ms.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The most accurate (the default).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    storage: options.StorageOption = None,
) -> None:
    """Write a placement as a timm model folder with train.yaml and a model card. Example: nasattn export STUDY --max-latency 1.2x --out DIR"""
    if sum((trial is not None, max_latency is not None, best)) > 1:
        raise UsageError("--trial, --max-latency and --best exclude each other: give one of them")
    exported = _open(study, storage).export(out, trial=trial, max_latency=max_latency, force=force)
    printer = console.out()
    printer.print(f"Wrote {exported.folder}: {exported.placement} (weights freshly initialised: train it before use)", highlight=False)
    printer.print("Checked in a clean process: same weights, same outputs.\n")
    print(exported.snippet + "\n")
    print(exported.train)


@app.command()
def dashboard(
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1.", min=1, max=65535)] = 8080, storage: options.StorageOption = None
) -> None:
    """Open Optuna dashboard on the study database, on this machine only. Example: nasattn dashboard --port 8081"""
    import socket

    from nasattn.api import default_storage
    from nasattn.store import Store

    store = Store(default_storage(storage), create=False)
    try:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            free.listen()
    except OSError as error:
        raise UsageError(f"port {port} cannot be used: {error.strerror}; give another by --port") from None
    import optuna_dashboard
    from optuna.artifacts import FileSystemArtifactStore

    from nasattn.store.artifacts import artifact_folder

    folder = artifact_folder(store.url)
    artifacts = FileSystemArtifactStore(folder) if folder is not None and folder.is_dir() else None
    print(f"Optuna dashboard of {store.shown} at http://127.0.0.1:{port}/ (Ctrl-C ends it)", flush=True)
    try:
        optuna_dashboard.run_server(store.optuna, host="127.0.0.1", port=port, artifact_store=artifacts)
    except OSError as error:
        raise UsageError(f"port {port} cannot be used: {error.strerror}; give another by --port") from None


@app.command()
def doctor(storage: options.StorageOption = None, as_json: options.JsonOption = False) -> None:
    """Say what this machine has of what a search needs, and how to get what is missing. Exit code 1: a search cannot run. Example: nasattn doctor"""
    from nasattn.api import default_storage
    from nasattn.doctor import examine

    findings = []
    for finding in examine(default_storage(storage)):
        findings.append(finding)
        if not as_json:
            mark = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}[finding.state]
            print(f"{mark}  {finding.name:18} {finding.found}{'; ' + finding.remedy if finding.remedy else ''}", flush=True)
    if as_json:
        print(json.dumps([f.to_dict() for f in findings], indent=2))
    if problems := [f.name for f in findings if f.state == "problem"]:
        raise NasattnError(f"a search cannot run here: {', '.join(problems)}; see above what to do")


app.command()(cli_latency.latency)
app.command("proxy-report")(cli_proxy.proxy_report)
app.command("tune-proxy")(cli_proxy.tune_proxy)
app.command("report")(cli_report.report)


def _open(study: str, storage: str | None) -> Study:
    from nasattn.api import open_study

    return open_study(study, storage)


def main() -> None:
    """Entry point of the `nasattn` command: errors become one line and an exit code."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments, standalone_mode=False)
    except UsageError as error:
        return _complain(str(error), 2)
    except NasattnError as error:
        return _complain(f"{error}{_see_log()}", 1)
    except CLICK_USAGE_ERROR as error:
        if "NoArgsIsHelp" in type(error).__name__:
            print(error)
            return 2
        context = getattr(error, "ctx", None)
        return _complain(
            f"{getattr(error, 'format_message', error.__str__)()} See `{context.command_path if context else 'nasattn'} --help`.", 2
        )
    except (typer.Abort, KeyboardInterrupt):
        return _complain("interrupted" + ("; what was done is kept: run the same command again to go on" if log.current() else ""), 1)
    except BrokenPipeError:  # whoever read our output has enough, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # the interpreter flushes it at its end
        return 1
    except Exception as error:  # a mistake of ours, which the log explains
        first = next(iter(str(error).splitlines()), "")
        path = log.keep_traceback(error)
        return _complain(
            f"internal error, please report it: {type(error).__name__}: {first}" + (f"; its traceback is in {path}" if path else ""), 1
        )
    finally:
        log.stop()
    return code if isinstance(code, int) else 0


def _see_log() -> str:
    return f"; log: {log.current()}" if log.current() else ""


def _complain(message: str, code: int) -> int:
    print(f"nasattn: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
