"""The parts of the page, one function each; a part that has nothing to show says why."""

from __future__ import annotations

import json
import shlex
from typing import Any

from nasattn.front import FrontMember
from nasattn.report.agreement import context, verdict
from nasattn.report.compute import FEWEST as FEWEST_PREDICTED
from nasattn.report.effects import FEWEST as FEWEST_EFFECTS
from nasattn.report.faults import MOST_NAMED
from nasattn.report.importance import FEWEST as FEWEST_IMPORTANCES
from nasattn.report.page import grids
from nasattn.report.page.html import Html, element, join, paragraph, plot, section, table, text
from nasattn.report.study_data import StudyData, shown_config
from nasattn.report.tables import MEMBERSHIP, latency_mark
from nasattn.report.words import headline, percent

MOST_FAULTS = 20
MOST_MEMBERS = 60
MOST_UNTRIED = 30


def summary(data: StudyData) -> Html:
    """The findings in words, and the figures that one looks for first."""
    best = max(data.front, key=lambda m: m.accuracy, default=None)
    tiles = [
        ("best accuracy", percent(best.accuracy) if best else "-"),
        ("at latency", f"{best.latency_ratio:.2f}x" if best else "-"),
        ("plain host", percent(data.plain.accuracy) if data.plain else "-"),
        ("on the front", str(len(data.front))),
        ("trainings", str(sum(t.is_own_trial for t in data.trials))),
        ("training time", _duration(data.training_seconds)),
    ]
    first, *rest = headline(data)
    return element(
        "section",
        paragraph(first, class_="lead"),
        element("ul", *(element("li", t) for t in rest)) if rest else "",
        element("dl", *(element("div", element("dt", n), element("dd", v)) for n, v in tiles), class_="tiles"),
        id="summary",
    )


def front(data: StudyData) -> Html:
    if not data.appraised:
        return section(
            "the-front", "The front", paragraph("No placement has both an accuracy and a latency yet, so nothing can be compared.")
        )
    stages = range(1, len(data.choices.tokens) + 1)
    buttons = element(
        "div",
        element("span", "colour: "),
        element("button", "whole placement", type="button", data_mode=0),
        *(element("button", f"stage {n}", type="button", data_mode=n) for n in stages),
        class_="modes",
        role="group",
        aria_label="What colours tell",
    )
    legend = paragraph(
        "● certified · ○ provisional · small: dominated · ◆ the same attention in every stage · ★ the plain host. "
        "Bars: 95 % intervals, of members and of what may be one (probability of 0.2 or more). Hover over a point, or tap it, to see the placement.",
        class_="note",
    )
    return section("the-front", "The front", buttons, plot("front", "Accuracy over latency of all placements"), legend, _members(data))


def _members(data: StudyData) -> Html:
    shown = data.front[:MOST_MEMBERS]
    rows = ([element("code", m.placement), *_figures(m)] for m in shown)
    more = paragraph(f"And {len(data.front) - len(shown)} more.", class_="note") if len(data.front) > len(shown) else ""
    head = ("placement", "accuracy", "latency", "ms", "p", "tier", "gain", "parameters", "trial")
    note = (
        f"{MEMBERSHIP}; gain: points of accuracy against the plain host trained in the same way; "
        "~ predicted from the table of stages; * something else used the device meanwhile."
    )
    commands = element("pre", "\n".join(f"{_export(data, m)}  # {m.placement}" for m in shown))
    export = element("details", element("summary", "export one as a timm model folder"), commands)
    return join((table(head, rows, class_="members"), more, paragraph(note, class_="note"), export))


def _figures(m: FrontMember) -> tuple[str, ...]:
    return (
        f"{percent(m.accuracy)} ± {196 * m.accuracy_se:.1f}",
        f"{m.latency_ratio:.3f}x ({m.latency_ratio_low:.3f}-{m.latency_ratio_high:.3f}){latency_mark(m)}",
        f"{m.latency_ms:.2f}",
        f"{m.p_member:.2f}",
        m.tier,
        f"{100 * m.gain:+.1f}" if m.gain is not None else "-",
        f"{m.params / 1e6:.2f} M",
        str(m.trial),
    )


def _export(data: StudyData, m: FrontMember) -> str:
    return f"nasattn export {shlex.quote(data.record.name)} --trial {m.trial} --out model-{m.trial}{data.storage}"


def where(data: StudyData) -> Html:
    title = "Which attention, where"
    if not data.effects:
        return section(
            "effects",
            title,
            paragraph(
                f"Too few different placements completed to tell what each choice adds: it takes {FEWEST_EFFECTS}, with accuracies that differ."
            ),
        )
    lead = paragraph(
        "Accuracy gained per added millisecond, against none in that stage (pt: points of accuracy). Colour and bold: points per millisecond; "
        "below: the gain in points and the added milliseconds that it is made of, each ± its 95 % interval. Pale: the interval holds zero."
    )
    note = paragraph(
        "- /ms: the added latency is not known or cannot be told from zero, so dividing by it would say nothing; gain and milliseconds stand by themselves. "
        "Not tried: no completed trial had it there. Gains come from a Bayesian model of this study's trials (additive in the stages, with interactions; "
        "attentions of a kind share what they are worth), latencies from the table of stages or, failing that, from placements measured whole. "
        "The intervals hold for the proxy as it was trained, and for the model's weights that fit best.",
        class_="note",
    )
    few = ""
    shown = set(grids.shown_tokens(data))
    if hidden := [t for t in data.choices.all_tokens if t not in shown]:
        more = f" and {len(hidden) - MOST_UNTRIED} more" if len(hidden) > MOST_UNTRIED else ""
        few = paragraph(f"No completed trial had, in any stage: {', '.join(hidden[:MOST_UNTRIED])}{more}.", class_="note")
    switch = element(
        "div",
        element("button", "on average over the study's placements", type="button", data_grid="average", aria_pressed="true"),
        element("button", "alone in the plain host", type="button", data_grid="alone", aria_pressed="false"),
        class_="modes",
        role="group",
    )
    average, alone = (element("div", grids.gains(data, each), data_shown=name) for name, each in (("average", False), ("alone", True)))
    return section("effects", title, lead, switch, average, Html(alone.replace("<div ", "<div hidden ", 1)), few, note)


def latency(data: StudyData) -> Html:
    title = "What each attention adds to the latency"
    if not data.added:
        return section("latency", title, paragraph("No latency of a stage or of a whole placement is stored for this study."))
    error = f" A prediction from the table of stages is off by a {data.error}." if data.error else ""
    lead = paragraph(
        f"Added to the {grids.plain_ms(data):.1f} ms of the plain {data.host}, ± the 95 % interval. Pale: cannot be told from zero.{error}"
    )
    return section("latency", title, lead, grids.latencies(data))


def compute(data: StudyData) -> Html:
    title = "What the training time bought"
    if not data.growths:
        return section("compute", title, paragraph("Fewer than two trials completed: there is no growth to show."))
    told = {
        "studies": f"Beside it, what random choice reached: the mean of {len(data.rivals)} other studies of this database, of the same space, task and proxies on the same device, and where 80 % of them are.",
        "predicted": "Beside it, what random choice is predicted to reach. That was not trained: placements are drawn at random, and their accuracies (with a training's noise), latencies and training times come from models of "
        "this study's trials; the band holds 80 % of such draws. It is followed for some 150 placements, and it leans to the optimistic side: of attentions that the study never tried some draws are good. For a comparison that was trained, search the same space with --sampler random into this database.",
    }
    sources = [g.source for g in data.growths if g.source != "study"]
    chosen = data.record.config.get("sampler") == "random"
    missing = (
        "This study chose at random itself."
        if chosen
        else f"Random choice is not shown: the database has no such study, and fewer than {FEWEST_PREDICTED} placements are too few to predict it."
    )
    note = told[sources[0]] if sources else missing
    lead = "Hypervolume of the front over the training time of all workers, as a part of the rectangle between the fastest placement without an error and the slowest with the lowest accuracy. It falls where another seed disappoints."
    return section("compute", title, paragraph(lead), plot("growth", "Hypervolume over training time"), paragraph(note, class_="note"))


def parallel(data: StudyData) -> Html:
    title = "All placements"
    if len(data.appraised) < 2:
        return section("placements", title, paragraph("Fewer than two placements completed with a latency."))
    lead = "A line a placement, from stage to stage to latency and accuracy; lighter is more accurate. Click an attention to see only the lines through it, and again to see all."
    return section("placements", title, paragraph(lead), plot("parallel", "Parallel coordinates of all placements"))


def importance(data: StudyData) -> Html:
    title = "Which stage decides"
    if not data.importances:
        return section("importances", title, paragraph(f"Too few completed trials to tell: it takes {FEWEST_IMPORTANCES}."))
    lead = "The share of what the choices explain that each stage's choice explains (fANOVA, by Optuna), separately for accuracy and for latency. With few trials take it as a hint."
    return section("importances", title, paragraph(lead), plot("importance", "Importance of each stage for accuracy and latency"))


def proxy(data: StudyData) -> Html:
    title = "How far the proxy can be trusted"
    if data.agreement is None:
        command = f"nasattn proxy-report {shlex.quote(data.record.name)}{data.storage}"
        return section(
            "proxy",
            title,
            paragraph("Not asked yet: ", element("code", command), " trains some of these placements much longer and compares."),
        )
    found, longer = data.agreement
    told = [f for f in (found.proxy, *found.others) if f.tau.value is not None]
    rows = [[f.name, _interval(f.tau), _interval(f.top_half), _interval(f.partial)] for f in told]
    head = ("ranks by", "Kendall's tau", "in the better half", "given latency")
    lead = paragraph(f"{verdict(found)} {context(found)} Long runs had {longer} times the epochs, on images held out of the study.")
    return section("proxy", title, lead, plot("proxy", "Long training over proxy accuracy"), table(head, rows))


def _interval(estimate: Any) -> str:
    if estimate.value is None:
        return "-"
    return f"{estimate.value:.2f}" + (f" ({estimate.low:.2f} to {estimate.high:.2f})" if estimate.low is not None else "")


def faults(data: StudyData) -> Html:
    title = "Faults"
    if not data.faults:
        return section("faults", title, paragraph("No trial failed."))
    rows = []
    for cause, failed in list(data.faults.items())[:MOST_FAULTS]:
        named = ", ".join(str(t.trial) for t in failed[:MOST_NAMED]) + (", ..." if len(failed) > MOST_NAMED else "")
        trace = (failed[0].error or "").strip()
        more = element("details", element("summary", f"trial {failed[0].trial} in full"), element("pre", trace)) if trace != cause else ""
        rows.append([str(len(failed)), join((cause, more)), named])
    left = len(data.faults) - MOST_FAULTS
    return section(
        "faults",
        title,
        table(("trials", "cause", "which"), rows, class_="faults"),
        paragraph(f"And {left} more causes.") if left > 0 else "",
    )


def made(data: StudyData) -> Html:
    record = data.record
    seeds = sorted({t.seed for t in data.trials})
    facts = [
        ("space", record.config.get("space_name", "-") + (f", {data.choices.size:,} placements" if data.choices.size else "")),
        ("host", data.host),
        ("task", record.config.get("task", "-")),
        ("device of the latencies", "; ".join(data.keys) or "-"),
        ("seed of the study", record.seed),
        ("seeds of trainings", ", ".join(map(str, seeds)) or "-"),
        ("begun", record.created_at.isoformat(sep=" ", timespec="seconds") if record.created_at else "-"),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items()) or "-"),
    ]
    config = json.dumps(shown_config(record.config), indent=2, ensure_ascii=False, default=str)
    whole = element("details", element("summary", "resolved configuration"), element("pre", config))
    return section(
        "made",
        "How it was made",
        element("dl", *(join((element("dt", n), element("dd", text(v)))) for n, v in facts), class_="facts"),
        whole,
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
