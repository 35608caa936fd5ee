"""The command line: one function a command, thin over the Python API. Exit codes: 0 done, 1 the work failed, 2 wrong usage."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nasattn import cli_latency, cli_proxy, cli_report, completion, console, log, options
from nasattn.errors import NasattnError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from nasattn.front import FrontMember
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


@app.command()
def search(
    space: options.SpaceOption = None,
    host: options.HostOption = None,
    study: options.StudyOption = None,
    task: options.TaskOption = None,
    recipe: options.RecipeOption = None,
    trials: options.TrialsOption = None,
    time_budget: options.TimeOption = None,
    compute_budget: options.ComputeOption = None,
    plateau: options.PlateauOption = None,
    certify: options.CertifyOption = None,
    max_failures: options.FailuresOption = None,
    progress_timeout: options.ProgressOption = None,
    sampler: options.SamplerOption = None,
    halving: options.HalvingOption = None,
    max_latency: options.LimitOption = None,
    max_params: options.ParamsOption = None,
    max_macs: options.MacsOption = None,
    max_memory: options.MemoryOption = None,
    runtime: options.RuntimeOption = None,
    storage: options.StorageOption = None,
    address: options.AddressOption = None,
    workers: options.WorkersOption = None,
    gpus_per_trial: options.GpusOption = None,
    device: options.DeviceOption = None,
    seed: options.SeedOption = None,
    fresh: options.FreshOption = False,
    dry_run: options.DryRunOption = False,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Search a space: measure latency, train proxies, record the front. Example: nasattn search --space resnet50_stages"""
    given = locals()
    _search(_settings(given), "", storage, address, fresh, dry_run, quiet, as_json)


@app.command()
def run(
    file: Annotated[str, typer.Argument(help="A study file, or the name of a shipped one.", autocompletion=completion.study_files)],
    study: options.StudyOption = None,
    task: options.TaskOption = None,
    recipe: options.RecipeOption = None,
    trials: options.TrialsOption = None,
    time_budget: options.TimeOption = None,
    compute_budget: options.ComputeOption = None,
    plateau: options.PlateauOption = None,
    certify: options.CertifyOption = None,
    max_failures: options.FailuresOption = None,
    progress_timeout: options.ProgressOption = None,
    sampler: options.SamplerOption = None,
    halving: options.HalvingOption = None,
    max_latency: options.LimitOption = None,
    max_params: options.ParamsOption = None,
    max_macs: options.MacsOption = None,
    max_memory: options.MemoryOption = None,
    runtime: options.RuntimeOption = None,
    storage: options.StorageOption = None,
    address: options.AddressOption = None,
    workers: options.WorkersOption = None,
    gpus_per_trial: options.GpusOption = None,
    device: options.DeviceOption = None,
    seed: options.SeedOption = None,
    fresh: options.FreshOption = False,
    dry_run: options.DryRunOption = False,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Search as a study file says; flags override it. Example: nasattn run quickstart --trials 48"""
    given = locals()
    from nasattn.config import find_yaml
    from nasattn.errors import StudyError
    from nasattn.search.study import read_study_file

    path = find_yaml("studies", file, StudyError)
    written = read_study_file(path)
    if recipe is not None:  # which says how far proxies are reduced, too
        written.pop("fidelity", None)
    settings = {**written, **{k: v for k, v in _settings(given).items() if v is not None}}
    _search(settings, f"{path}: ", storage, address, fresh, dry_run, quiet, as_json)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """Those of a command's arguments that a study file could hold."""
    from nasattn.search.study import STUDY_KEYS

    return {key: given[key] for key in STUDY_KEYS if key in given}


def _search(
    settings: dict[str, Any], where: str, storage: str | None, address: str | None, fresh: bool, dry_run: bool, quiet: bool, as_json: bool
) -> None:
    from nasattn.api import default_storage
    from nasattn.front import appraise
    from nasattn.report.faults import fault_lines
    from nasattn.report.progress import SearchView, spent
    from nasattn.report.tables import front_table
    from nasattn.search.cluster import quiet_libraries

    quiet_libraries()
    from nasattn.search.driver import run_search
    from nasattn.search.planning import plan
    from nasattn.search.study import make_config

    config = make_config(settings, where)
    if dry_run:
        from nasattn.report.plan import describe_plan
        from nasattn.report.progress import measuring

        with measuring(console.err(), "every choice once") as listener:
            figures = plan(config, address, default_storage(storage), listener)
        console.out().print_json(json.dumps(figures)) if as_json else console.print_pairs(describe_plan(figures))
        return
    log.start("search", config.name)
    printer = console.out()
    with SearchView(console.progress(as_json), quiet) as view:
        result = run_search(config, default_storage(storage), address=address, fresh=fresh, listener=view)
    if as_json:
        console.out().print_json(
            json.dumps(
                {
                    "study": result.study,
                    "complete": result.complete,
                    "ended": result.ended,
                    "trainings": round(result.trainings, 3),
                    "training_seconds": round(result.training_seconds, 1),
                    "front": [m.to_dict() for m in result.front],
                }
            )
        )
    elif not quiet:
        printer.print(front_table(result.front, f"Front of {result.study}", printer.width))
        _print_honest(printer, appraise(result.evaluations))
        faults = fault_lines(result.study, result.evaluations)
        for line in faults:
            printer.print(line, highlight=False, soft_wrap=True, markup=False)
        printer.print(f"Ended: {result.ended}; {spent(result)}", highlight=False)
        if faults and log.current():
            printer.print(f"Log: {log.current()}", highlight=False, soft_wrap=True)
        if result.front:
            printer.print(f"Export the best: nasattn export {result.study} --best --out DIR", highlight=False)
    if not result.complete:
        raise NasattnError(f"{result.ended}: run the same command again to continue study {result.study}")
    if not result.front:
        raise NasattnError(f"no trial of study {result.study} completed: `nasattn show {result.study} 0` says why")


def _print_honest(printer: Console, placements: Sequence[FrontMember]) -> None:
    from nasattn.report.tables import honest_line

    if line := honest_line(placements):
        printer.print(line, highlight=False, soft_wrap=True)


@app.command("certify")
def certify_study(
    study: options.StudyArgument,
    trainings: Annotated[int, typer.Option("--trainings", help="At most so many; fewer where no membership is in doubt.", min=1)] = 6,
    storage: options.StorageOption = None,
    address: options.AddressOption = None,
    workers: options.WorkersOption = None,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Train likely members of a study's front again, with other seeds and scored on test images too. Example: nasattn certify STUDY"""
    from nasattn.api import certify as certify_front
    from nasattn.report.progress import SearchView
    from nasattn.report.tables import front_table

    log.start("certify", study)
    printer = console.out()
    with SearchView(console.progress(as_json), quiet) as view:
        certified = certify_front(study, trainings, storage=storage, address=address, workers=workers, listener=view)
    if as_json:
        print(json.dumps([m.to_dict() for m in certified.front()], indent=2))
    elif not quiet:
        printer.print(front_table(certified.front(), f"Front of {study}", printer.width))
        _print_honest(printer, certified.placements())


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
            _print_honest(printer, placements)
        if opened.has_proxy_report and (report := opened.proxy_report()):
            from nasattn.report.agreement import verdict

            printer.print(f"Proxy: {verdict(report.agreement)}", highlight=False, soft_wrap=True)


@app.command()
def studies(storage: options.StorageOption = None, as_json: options.JsonOption = False) -> None:
    """List the studies of the database, and the shipped study files that `nasattn run` takes. Example: nasattn studies"""
    from nasattn.api import DEFAULT_STORAGE, default_storage
    from nasattn.report.tables import shipped_studies_table, studies_table, study_summaries
    from nasattn.store import Store

    url = default_storage(storage)
    begun = url != DEFAULT_STORAGE or Path(url.removeprefix("sqlite:///")).exists()
    summaries = study_summaries(Store(url, create=False)) if begun else []
    if as_json:
        print(json.dumps(summaries, indent=2))
    else:
        console.out().print(studies_table(summaries), shipped_studies_table())


@app.command()
def spaces(
    name: Annotated[str | None, typer.Argument(help="Show this space, or a YAML file, whole.", autocompletion=completion.spaces)] = None,
    host: options.YamlHostOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """List the shipped search spaces with their size and choices.

    Examples: nasattn spaces resnet50_stages
              nasattn spaces --host resnet26d > my_space.yaml
    """
    from nasattn.report.tables import space_summary, space_table, spaces_table
    from nasattn.space import list_spaces, load_space

    if host is not None:
        from nasattn.usual_space import space_yaml, usual_space

        if name is not None:
            raise UsageError(f"give a space or --host, got both {name} and --host {host}")
        made = usual_space(host)
        print(json.dumps(space_summary(made), indent=2) if as_json else space_yaml(made), end="\n" if as_json else "")
        return
    loaded = [load_space(n) for n in ([name] if name else list_spaces())]
    if as_json:
        print(json.dumps([space_summary(s) for s in loaded], indent=2))
    elif name:
        console.out().print(space_table(loaded[0]))
    else:
        console.out().print(spaces_table(loaded))


@app.command()
def hosts(
    name: Annotated[str | None, typer.Argument(help="Show the stages of this host.", autocompletion=completion.hosts)] = None,
    as_json: options.JsonOption = False,
) -> None:
    """List the backbones that can carry a placement. Example: nasattn hosts nasattn_resnet50"""
    from nasattn.hosts import find_host, list_hosts
    from nasattn.report.tables import host_summary, host_table

    if name:
        host = find_host(name)
        print(json.dumps(host_summary(host), indent=2)) if as_json else console.out().print(host_table(host))
    else:
        print(json.dumps(list_hosts(), indent=2) if as_json else "\n".join(sorted(list_hosts())))


@app.command()
def attentions(as_json: options.JsonOption = False) -> None:
    """List the attentions: token, paper, options, parameters at 256 channels. Example: nasattn attentions"""
    from nasattn.report.tables import attention_summaries, attentions_table

    summaries = attention_summaries()
    print(json.dumps(summaries, indent=2)) if as_json else console.out().print(attentions_table(summaries))


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
