"""The commands that train: a search, a search as a file says, and the certification of a front."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nasattn import completion, console, log, options
from nasattn.errors import NasattnError

if TYPE_CHECKING:
    from rich.console import Console

    from nasattn.front import FrontMember


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
        print_honest(printer, appraise(result.evaluations))
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


def print_honest(printer: Console, placements: Sequence[FrontMember]) -> None:
    """Say what the front is worth on images held out of the search, as far as that is known."""
    from nasattn.report.tables import honest_line

    if line := honest_line(placements):
        printer.print(line, highlight=False, soft_wrap=True)


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
        print_honest(printer, certified.placements())
