"""How far the proxy can be trusted, as users see it: a verdict, a table that fits the terminal, plain data, and a picture."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nasattn.errors import UsageError
from nasattn.proxy.agreement import Agreement, agree
from nasattn.proxy.fidelity import Fidelity
from nasattn.report.agreement import (
    agreement_summary,
    agreement_table,
    context,
    plot_agreement,
    tuned_summary,
    tuned_table,
    tuned_verdict,
    verdict,
)
from nasattn.search.tune_proxy import Candidate, Tuned

N = 20
RNG = np.random.default_rng(1)
QUALITY, NOISE = RNG.standard_normal(N), RNG.standard_normal(N)
LATENCY = 1 + 0.2 * RNG.random(N)
LONG = 0.75 + 0.06 * QUALITY[:, None] + 0.02 * RNG.standard_normal((N, 2))
GOOD = 0.5 + 0.08 * QUALITY + 0.01 * RNG.standard_normal(N)
OTHERS = {"params": NOISE, "MACs": np.roll(NOISE, 3), "latency": LATENCY, "grad_norm": np.ones(N)}


def compared(proxy: np.ndarray = GOOD, others: dict[str, np.ndarray] = OTHERS, long_run: np.ndarray = LONG) -> Agreement:
    return agree([f"p{i}" for i in range(N)], proxy, long_run, LATENCY, others)


def lines(found: Agreement, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, _environ={})
    console.print(agreement_table(found, width))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def row(found: Agreement, name: str, width: int = 80) -> str:
    return next(" ".join(line.split()) for line in lines(found, width) if line.startswith(name + " "))


def ends(estimate: object) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f}, {estimate.high:.2f})"  # type: ignore[attr-defined]


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    found = compared(-GOOD, {"a_long_name": -QUALITY, **OTHERS})  # negative numbers are the widest
    shown = lines(found)
    assert max(map(len, shown)) <= 80
    assert not any("…" in line for line in shown)
    assert shown[0].strip() == "rankings of 20 placements against 2 long runs each"


def test_rows_of_the_table() -> None:
    found = compared()
    assert [line.split("  ")[0].strip() for line in lines(found)[4:10]] == [
        "proxy",
        "seed to seed",
        "params",
        "MACs",
        "latency",
        "grad_norm",
    ]
    p = found.proxy
    assert row(found, "proxy") == (
        f"proxy {ends(p.tau)} {p.top_half.value:.2f} {p.partial.value:.2f} {100 * p.settled.value:.0f}% "
        f"{100 * p.regret:.1f} {100 * p.hypervolume:.0f}% ({p.chosen})"  # type: ignore[operator]
    )
    assert row(found, "seed to seed") == f"seed to seed {ends(found.ceiling)}"
    assert row(found, "grad_norm") == "grad_norm - - - - - -"
    assert row(found, "latency").split()[-5] == "-"  # given itself
    assert row(found, "latency").endswith("100% (20)")


def test_a_wide_terminal_shows_every_interval() -> None:
    found = compared()
    shown = row(found, "proxy", 140)
    for estimate in (found.proxy.tau, found.proxy.spearman, found.proxy.top_half, found.proxy.partial):
        assert ends(estimate) in shown
    assert max(map(len, lines(found, 140))) <= 140


def test_the_table_says_what_it_left_out() -> None:
    assert not any("left out" in line for line in lines(compared()))
    lost = LONG.copy()
    lost[:2] = np.nan
    shown = lines(compared(long_run=lost))
    assert shown[0].startswith("rankings of 18 placements")
    assert "left out: 2 without a long run that finished, a proxy accuracy or a latency" in " ".join(" ".join(shown).split())


def test_one_long_run_each_has_no_ceiling() -> None:
    found = compared(long_run=LONG[:, :1])
    assert lines(found)[0].strip() == "rankings of 20 placements against one long run each"
    assert row(found, "seed to seed") == "seed to seed -"


def test_the_verdict_on_a_proxy_that_is_better() -> None:
    found = compared()
    assert verdict(found) == f"The proxy, tau {ends(found.proxy.tau)}, ranks better than params, MACs and latency."
    alone = compared(others={})
    assert verdict(alone) == f"The proxy, tau {ends(alone.proxy.tau)}, ranks better than chance."


def test_the_verdict_on_a_proxy_that_is_not() -> None:
    found = compared(others={"params": NOISE, "MACs": QUALITY})
    macs = found.others[1]
    difference = ends(macs.margin).replace("-0.00", "0.00")
    assert verdict(found) == (
        f"The proxy, tau {ends(found.proxy.tau)}, is no better than MACs (tau {macs.tau.value:.2f}, difference {difference})."
    )


def test_the_verdict_on_noise() -> None:
    noise = np.random.default_rng(5).random(N)
    found = compared(noise, {"MACs": QUALITY})
    assert "is no better than MACs (tau " in verdict(found)
    assert verdict(found).endswith("The proxy is no better than chance: the interval of its tau does not lie above 0.")
    assert verdict(compared(noise, {})).startswith(f"The proxy, tau {ends(compared(noise, {}).proxy.tau)}, is no better than chance: ")


def test_the_verdict_tells_of_what_ranks_the_other_way() -> None:
    found = compared(GOOD + 0.05 * NOISE, {"params": -QUALITY})
    assert verdict(found).endswith("Taken the other way, params would rank better than the proxy: less of it goes with more accuracy.")


def test_the_verdict_where_nothing_differs() -> None:
    assert verdict(compared(np.full(N, 0.1))).startswith("The proxy ranks nothing")


def test_the_summary_is_plain_data_that_reads_back() -> None:
    found = compared()
    summary = agreement_summary(found)
    assert (summary["better"], summary["verdict"]) == (True, verdict(found))
    assert summary["proxy"]["tau"]["value"] == found.proxy.tau.value
    assert Agreement.from_dict(json.loads(json.dumps(summary, allow_nan=False))) == found


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_picture(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"proxy.{kind}"
    plot_agreement(compared(), path)
    assert path.stat().st_size > 5000
    if kind == "svg":
        text = path.read_text()
        for words in ("proxy accuracy, %", "seed to seed", "MACs", "ranks nothing", "mean and range of 2 seeds"):
            assert f"<!-- {words}" in text or words in text


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_picture_of_few_points(tmp_path: Path, seeds: int) -> None:
    long_run = LONG[:4, :seeds].copy()
    plot_agreement(agree(list("abcd"), GOOD[:4], long_run, LATENCY[:4], {}), tmp_path / "few.png")
    plot_agreement(agree(list("abcd"), np.full(4, 0.1), long_run, np.ones(4), {}), tmp_path / "flat.png")
    assert (tmp_path / "few.png").exists() and (tmp_path / "flat.png").exists()


def test_what_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown kind of picture '.txt'"):
        plot_agreement(compared(), tmp_path / "proxy.txt")


def test_the_verdict_on_a_proxy_that_ranks_the_wrong_way_round() -> None:
    found = compared(-GOOD, {})
    assert found.proxy.tau.high is not None and found.proxy.tau.high < 0
    assert verdict(found).endswith("is no better than chance: the interval of its tau does not lie above 0.")


def test_what_the_verdict_is_to_be_read_with() -> None:
    found = compared()
    assert context(found) == (
        f"One long run agrees with another by a tau of {ends(found.ceiling)}. "
        f"Of the {found.settled_pairs} pairs that the long runs settle, the proxy orders {found.proxy.settled.value:.0%} rightly."
    )
    assert "agrees with another" not in context(compared(long_run=LONG[:, :1]))


def tuned(*proxies: np.ndarray | None) -> Tuned:
    """What was tried: the study's own fidelity first; None: too few trainings finished."""
    found = [None if p is None else compared(p, {}) for p in proxies]
    return Tuned("s", 20.0, tuple(Candidate(Fidelity(epochs=n), f"s{n}", n, f, True) for n, f in enumerate(found, start=1)))


def test_whether_a_tuned_proxy_ranks_better_than_the_own_one() -> None:
    better, alike = tuned(NOISE, GOOD), tuned(0.5 + 0.08 * QUALITY + 0.03 * NOISE, GOOD)
    assert better.gain is not None and better.gain.low is not None and better.gain.low > 0
    assert better.gain.value == pytest.approx(better.candidates[1].tau - better.candidates[0].tau)
    assert tuned_verdict(better) == f"Its tau is above that of the study's own fidelity by {ends(better.gain)}."
    assert alike.gain is not None and alike.gain.low is not None and alike.gain.low <= 0 < (alike.gain.value or 0)
    assert tuned_verdict(alike).startswith(f"Its tau is above that of the study's own fidelity by {ends(alike.gain)}: that may be chance.")
    own = tuned(GOOD, NOISE)
    assert own.gain is None
    assert tuned_verdict(own) == "None of the others ranks more like the long runs than the study's own fidelity."
    assert tuned_verdict(tuned(None, GOOD)) == "Whether it ranks better than the study's own fidelity cannot be told."
    slow = tuned(GOOD, NOISE)
    slow = replace(slow, candidates=(replace(slow.candidates[0], within=False), slow.candidates[1]))
    assert slow.gain is not None and slow.gain.high is not None and slow.gain.high < 0
    below = f"{-slow.gain.value:.2f} ({-slow.gain.high:.2f}, {-slow.gain.low:.2f})"  # type: ignore[operator]
    assert tuned_verdict(slow) == f"Its tau is below that of the study's own fidelity by {below}."
    for found in (better, alike, own, slow):
        assert json.loads(json.dumps(tuned_summary(found)))["verdict"] == tuned_verdict(found)


def test_the_table_of_tuned_proxies_says_what_was_given_up() -> None:
    def shown(found: Tuned) -> str:
        console = Console(file=io.StringIO(), width=80, color_system=None, _environ={})
        console.print(tuned_table(found))
        return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]

    whole = tuned(GOOD, NOISE)
    assert "half" not in shown(whole)
    stopped = replace(whole, candidates=(whole.candidates[0], replace(whole.candidates[1], given_up=True)))
    assert f"2.0 {ends(stopped.candidates[1].agreement.proxy.tau)} (half)" in shown(stopped)  # type: ignore[union-attr]
    assert "half: given up after half of the placements" in shown(stopped)
