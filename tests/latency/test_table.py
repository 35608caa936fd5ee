"""The additive table by hand: predictions, their intervals, what is missing, and how far it is from what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasattn.attention import Placement
from nasattn.latency import LatencyTable, TableError
from nasattn.latency.table import Ratio

PLAIN = Placement.parse("none,none,none,none")


@dataclass(frozen=True)
class Measured:
    """A ratio with an interval of a factor *spread* to both sides."""

    ratio: float
    spread: float = 1.0
    baseline_ms: float = 20.0

    @property
    def ms(self) -> float:
        return self.ratio * self.baseline_ms

    @property
    def ratio_low(self) -> float:
        return self.ratio / self.spread

    @property
    def ratio_high(self) -> float:
        return self.ratio * self.spread


SHARES = {(1, "none"): Measured(0.4), (2, "none"): Measured(0.3), (3, "none"): Measured(0.2), (4, "none"): Measured(0.1)}
ADDED = {(1, "sge_g32"): Measured(1.5), (2, "ela_l"): Measured(2.0), (2, "eca"): Measured(1.1), (4, "se"): Measured(0.9)}
TABLE = LatencyTable({**SHARES, **ADDED})


def table(changes: Mapping[tuple[int, str], Ratio], error: float = 0.0) -> LatencyTable:
    return LatencyTable({**SHARES, **ADDED, **changes}, error)


def width(placement: str, changed: LatencyTable) -> float:
    predicted = changed.predict(Placement.parse(placement))
    return math.log(predicted.ratio_high / predicted.ratio_low)


@pytest.mark.parametrize(
    ("placement", "ratio"),
    [
        ("sge_g32,none,none,none", 1 + 0.4 * 0.5),
        ("none,ela_l,none,none", 1 + 0.3 * 1.0),
        ("sge_g32,ela_l,none,none", 1 + 0.4 * 0.5 + 0.3 * 1.0),
        ("sge_g32,eca,none,se", 1 + 0.4 * 0.5 + 0.3 * 0.1 - 0.1 * 0.1),
        ("none,none,none,se", 1 - 0.1 * 0.1),
    ],
)
def test_a_prediction_by_hand(placement: str, ratio: float) -> None:
    predicted = TABLE.predict(Placement.parse(placement))
    assert predicted.ratio == pytest.approx(ratio)
    assert (predicted.baseline_ms, predicted.ms) == pytest.approx((20, 20 * ratio))
    assert (predicted.ratio_low, predicted.ratio_high) == pytest.approx((ratio, ratio))  # nothing is uncertain here


def test_what_an_entry_adds() -> None:
    assert TABLE.share(2) == 0.3
    assert TABLE.added(2, "ela_l") == pytest.approx(0.3)
    assert TABLE.added(4, "se") == pytest.approx(-0.01)
    assert TABLE.added(3, "none") == 0.0


def test_the_plain_host_is_exactly_one() -> None:
    uncertain = table({(1, "none"): Measured(0.4, 1.5), (1, "sge_g32"): Measured(1.5, 1.5)}, error=0.3)
    predicted = uncertain.predict(PLAIN)
    assert (predicted.ratio, predicted.ratio_low, predicted.ratio_high) == (1.0, 1.0, 1.0)
    assert (predicted.ms, predicted.baseline_ms) == (20.0, 20.0)


def test_the_plain_hosts_time_is_the_median_of_the_measurements_that_it_took_part_in() -> None:
    shares = {(n, "none"): Measured(0.25, baseline_ms=ms) for n, ms in enumerate((10.0, 31.0, 19.0, 90.0), start=1)}
    assert LatencyTable({**shares, (1, "se"): Measured(1.1, baseline_ms=5.0)}).plain_ms == 25.0


def test_the_interval_by_hand() -> None:
    """Of 1 + s (r - 1) the errors of s and r are those of a product and independent."""
    changed = table({(1, "none"): Measured(0.4, 1.1), (1, "sge_g32"): Measured(1.5, 1.05)}, error=0.02)
    predicted = changed.predict(Placement.parse("sge_g32,none,none,none"))
    share_sd, entry_sd = math.log(1.1) / 1.96, math.log(1.05) / 1.96
    sd = math.hypot(0.4 * 1.5 * entry_sd / 1.2, 0.4 * 0.5 * share_sd / 1.2, 0.02)
    assert math.log(predicted.ratio_high / predicted.ratio) == pytest.approx(1.96 * sd)
    assert math.log(predicted.ratio / predicted.ratio_low) == pytest.approx(1.96 * sd)


@pytest.mark.parametrize("entry", [(1, "none"), (1, "sge_g32"), (2, "none"), (2, "ela_l")])
def test_the_interval_grows_with_those_of_the_entries(entry: tuple[int, str]) -> None:
    ratio = {**SHARES, **ADDED}[entry].ratio
    widths = [width("sge_g32,ela_l,none,none", table({entry: Measured(ratio, spread)}, 0.01)) for spread in (1.0, 1.02, 1.1, 1.5)]
    assert widths == sorted(widths) and widths[0] < widths[-1]
    unconcerned = [width("none,none,none,se", table({entry: Measured(ratio, spread)}, 0.01)) for spread in (1.0, 1.5)]
    assert unconcerned[0] == unconcerned[1]


def test_the_interval_grows_with_the_tables_error() -> None:
    widths = [width("none,ela_l,none,none", table({}, error)) for error in (0.0, 0.01, 0.1)]
    assert widths == pytest.approx([0, 2 * 1.96 * 0.01, 2 * 1.96 * 0.1])


def test_what_is_missing_shares_first() -> None:
    empty = LatencyTable({})
    placement = Placement.parse("none,ela_l,none,se")
    assert empty.missing(placement) == [(2, "none"), (4, "none"), (2, "ela_l"), (4, "se")]
    assert empty.missing(PLAIN) == [(1, "none")]
    assert TABLE.missing(placement) == TABLE.missing(PLAIN) == []
    assert TABLE.missing(Placement.parse("eca,eca,eca,none")) == [(1, "eca"), (3, "eca")]
    assert LatencyTable({(4, "none"): Measured(0.1)}).missing(placement) == [(2, "none"), (2, "ela_l"), (4, "se")]
    with pytest.raises(KeyError):
        TABLE.predict(Placement.parse("eca,none,none,none"))


def test_where_an_attention_sits_makes_another_entry() -> None:
    assert TABLE.missing(Placement.parse("sge_g32@last,none,none,none")) == [(1, "sge_g32@last")]


def measured(**ratios: float) -> list[tuple[Placement, Ratio]]:
    return [(Placement.parse(text.replace("__", ",")), Measured(ratio)) for text, ratio in ratios.items()]


def test_nothing_to_compare() -> None:
    assert TABLE.compare([]) == (None, 0.0)
    assert TABLE.compare([(PLAIN, Measured(1.2))]) == (None, 0.0)
    assert TABLE.compare([(Placement.parse("eca,none,none,none"), Measured(1.2))]) == (None, 0.0)


def test_the_error_by_hand() -> None:
    """Predicted 1.2, 1.3 and 0.99; measured 1.2, 1.25 and 1.1: relative errors 0, 4 % and 10 %."""
    error, deviation = TABLE.compare(
        [
            *measured(sge_g32__none__none__none=1.2, none__ela_l__none__none=1.25, none__none__none__se=1.1),
            (PLAIN, Measured(3.0)),  # ignored, as is what the table cannot predict
            (Placement.parse("eca,none,none,none"), Measured(9.0)),
        ]
    )
    assert error is not None
    assert error.placements == 3
    assert (error.median, error.worst) == pytest.approx((0.04, 0.1))
    assert error.kendall == pytest.approx(1.0)
    assert deviation == pytest.approx(math.sqrt((0 + math.log(1.3 / 1.25) ** 2 + math.log(0.99 / 1.1) ** 2) / 3))


def test_the_rank_correlation_needs_three_placements() -> None:
    two = measured(sge_g32__none__none__none=1.2, none__ela_l__none__none=1.3)
    error, _ = TABLE.compare(two)
    assert error is not None and (error.placements, error.kendall) == (2, None)
    error, _ = TABLE.compare([*two, *measured(sge_g32__ela_l__none__none=1.1)])
    assert error is not None and error.kendall == pytest.approx(-1 / 3)
    error, _ = TABLE.compare(measured(sge_g32__none__none__none=1.2, none__ela_l__none__none=1.2, none__none__none__se=1.2))
    assert error is not None and error.kendall is None  # of equal measurements there is no order


def test_the_error_as_text() -> None:
    assert str(TableError(5, 0.0123, 0.2, 0.8)) == "median 1.2%, worst 20.0%, Kendall tau 0.80 over 5 placements measured end to end"
    assert str(TableError(2, 0.0, 0.0, None)) == "median 0.0%, worst 0.0% over 2 placements measured end to end"


ratios = st.floats(0.5, 20)
shares = st.lists(st.floats(0.01, 0.25), min_size=4, max_size=4)


@given(shares, st.lists(ratios, min_size=4, max_size=4), st.integers(0, 3), st.floats(0, 10))
def test_a_slower_entry_never_makes_a_faster_placement(share: list[float], entry: list[float], stage: int, slower: float) -> None:
    tokens = ["se", "eca", "gc", "sge_g32"]

    def predict(values: list[float]) -> float:
        entries = {(n, "none"): Measured(s) for n, s in enumerate(share, start=1)}
        entries |= {(n, t): Measured(v) for n, (t, v) in enumerate(zip(tokens, values, strict=True), start=1)}
        return LatencyTable(entries).predict(Placement.parse(tokens)).ratio

    changed = [v + slower * (n == stage) for n, v in enumerate(entry)]
    assert predict(changed) >= predict(entry)
    assert predict(changed) - predict(entry) == pytest.approx(share[stage] * slower, abs=1e-9)


@given(shares, st.lists(ratios, min_size=4, max_size=4), st.floats(1, 1.5), st.floats(0, 0.5))
def test_an_interval_holds_its_ratio(share: list[float], entry: list[float], spread: float, error: float) -> None:
    tokens = ["se", "eca", "gc", "sge_g32"]
    entries = {(n, "none"): Measured(s, spread) for n, s in enumerate(share, start=1)}
    entries |= {(n, t): Measured(v, spread) for n, (t, v) in enumerate(zip(tokens, entry, strict=True), start=1)}
    predicted = LatencyTable(entries, error).predict(Placement.parse(tokens))
    assert 0 < predicted.ratio_low <= predicted.ratio <= predicted.ratio_high < math.inf
