"""The commands about proxies: how far they can be trusted, and which would be better."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasattn import console, log, options

if TYPE_CHECKING:
    from nasattn.search.proxy_report import ProxyReport


def proxy_report(
    study: options.StudyArgument,
    placements: Annotated[int, typer.Option("--placements", help="How many to train longer, spread over the study's ranking.")] = 20,
    longer: Annotated[int, typer.Option("--longer", help="Times the proxy's epochs.")] = 5,
    seeds: Annotated[int, typer.Option("--seeds", help="Long runs of each placement.")] = 2,
    stored: Annotated[bool, typer.Option("--stored", help="Show the last report; train nothing.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw it into this file (.png, .svg, .pdf).")] = None,
    workers: options.WorkersOption = None,
    address: options.AddressOption = None,
    storage: options.StorageOption = None,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Say how far a study's proxy can be trusted: placements trained much longer, beside merely counting parameters.

    Example: nasattn proxy-report STUDY --longer 5 --seeds 2 --plot trust.png
    """
    from nasattn.api import proxy_report as report_on
    from nasattn.report.agreement import plot_agreement
    from nasattn.report.latency import check_picture
    from nasattn.report.progress import SearchView

    if plot is not None:
        check_picture(plot)
    if not stored:
        log.start("proxy-report", study)
    with SearchView(console.progress(as_json), quiet) as view:
        report = report_on(
            study,
            storage=storage,
            stored=stored,
            listener=view,
            placements=placements,
            longer=longer,
            seeds=seeds,
            workers=workers,
            address=address,
        )
    if plot is not None:
        plot_agreement(report.agreement, plot)
        print(f"Drawn: {plot}", file=sys.stderr)
    _show(report, as_json)


def _show(report: ProxyReport, as_json: bool) -> None:
    from nasattn.report.agreement import agreement_summary, agreement_table, context, verdict

    if as_json:
        print(json.dumps({**report.to_dict(), **agreement_summary(report.agreement)}, indent=2))
        return
    printer = console.out()
    printer.print(agreement_table(report.agreement, printer.width))
    stopped = f" Proxies of {report.stopped} that the search had stopped at a rung were trained to the end." if report.stopped else ""
    printer.print(
        f"\nLong runs: {report.longer} times the epochs of {report.study}, on images held out of it.{stopped}",
        highlight=False,
        soft_wrap=True,
    )
    printer.print(f"{verdict(report.agreement)} {context(report.agreement)}", highlight=False, soft_wrap=True)


def tune_proxy(
    study: options.StudyArgument,
    seconds: Annotated[float, typer.Option("--seconds", help="What a training may take.")],
    out: Annotated[Path, typer.Option("--out", help="Recipe file to write (.yaml).")],
    candidates: Annotated[int, typer.Option("--candidates", help="How many fidelities to try.")] = 8,
    workers: options.WorkersOption = None,
    address: options.AddressOption = None,
    storage: options.StorageOption = None,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Find the fidelity whose ranking is most like that of long runs, under a time per training; write it as a recipe file.

    Example: nasattn tune-proxy STUDY --seconds 20 --out recipe.yaml; then nasattn search --space SPACE --recipe recipe.yaml
    """
    from nasattn.api import tune_proxy as tune
    from nasattn.report.agreement import tuned_summary, tuned_table, tuned_verdict
    from nasattn.report.progress import SearchView

    log.start("tune-proxy", study)
    with SearchView(console.progress(as_json), quiet) as view:
        tuned = tune(study, seconds, out, storage=storage, listener=view, candidates=candidates, workers=workers, address=address)
    if as_json:
        print(json.dumps(tuned_summary(tuned), indent=2))
        return
    printer = console.out()
    printer.print(tuned_table(tuned))
    printer.print(tuned_verdict(tuned), highlight=False, soft_wrap=True)
    print(f"Wrote {out}: use it by `nasattn search --recipe {out} ...`")
