"""The meter of a host, on real models at a small resolution: whole placements, single stages, and who has the device when."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasattn.attention import Attention, Placement
from nasattn.errors import NasattnError, UsageError
from nasattn.hosts import Host, get_host
from nasattn.latency import Deployment, HostMeter, PairedLatency, RuntimeFailure
from nasattn.latency.contention import ContentionGuard
from nasattn.latency.host_meter import stage_inputs

DEPLOYMENT = Deployment(resolution=32)
HOST = "nasattn_resnet18"
BRIEF = 0.02  # seconds: how long is measured does not matter here
SGE = Attention.parse("sge_g8")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this machine does: what is said of that is the guard's own tests."""
    monkeypatch.setattr(ContentionGuard, "verdict", lambda self, samples: None)


@pytest.fixture(scope="module")
def meter() -> HostMeter:
    """One meter for the module, so that its plain host is built and calibrated once."""
    return HostMeter(get_host(HOST), DEPLOYMENT, calibration_seconds=BRIEF)


def is_sane(pair: PairedLatency) -> bool:
    return pair.ms > 0 and pair.baseline_ms > 0 and 0 < pair.ratio_low <= pair.ratio <= pair.ratio_high < math.inf and pair.rounds >= 6


def test_the_plain_host_has_ratio_one_by_definition(meter: HostMeter) -> None:
    pair = meter.measure(meter.host.plain(), BRIEF)
    assert (pair.ratio, pair.ratio_low, pair.ratio_high, pair.settled) == (1.0, 1.0, 1.0, True)
    assert is_sane(pair)


def test_a_placement_is_measured_against_the_plain_host(meter: HostMeter) -> None:
    pair = meter.measure(Placement.parse("sge_g8,none,none,none"), BRIEF)
    assert is_sane(pair)
    assert pair.ms_p90 is not None and pair.ms_p90 >= pair.ms
    assert pair.baseline_ms_p90 is not None and pair.baseline_ms_p90 >= pair.baseline_ms
    assert (pair.device_ms, pair.baseline_device_ms) == (None, None)  # there is no GPU's clock


@pytest.mark.parametrize("attention", ["sge_g8", "none", "se@last"])
def test_a_stage_is_measured_by_itself(meter: HostMeter, attention: str) -> None:
    """With an attention against the plain stage; plain against the whole plain host, of which it is a part."""
    assert is_sane(meter.measure_stage(2, Attention.parse(attention), BRIEF))


def test_an_attention_that_does_not_fit_the_stage(meter: HostMeter) -> None:
    with pytest.raises(UsageError, match="33 groups do not divide 64 channels"):
        meter.measure_stage(1, Attention.parse("sge_g33"), BRIEF)


def test_the_intervals_are_as_wide_as_equal_models_are_apart(meter: HostMeter) -> None:
    noise = meter.calibration.ratio
    for pair in (meter.measure(Placement.parse("eca,none,none,none"), BRIEF), meter.measure_stage(1, SGE, BRIEF)):
        assert pair.calibration == math.log(noise)
        assert math.log(pair.ratio_high / pair.ratio) >= abs(math.log(noise)) - 1e-9
        assert math.log(pair.ratio / pair.ratio_low) >= abs(math.log(noise)) - 1e-9


@pytest.mark.parametrize("noise", [1.25, 0.8])
def test_a_noisy_calibration_widens_to_both_sides(noise: float) -> None:
    meter = HostMeter(get_host(HOST), DEPLOYMENT, calibration_seconds=BRIEF)
    meter.calibration = replace(meter.calibration, ratio=noise)
    pair = meter.measure(Placement.parse("eca,none,none,none"), BRIEF)
    assert pair.calibration == math.log(noise)
    assert pair.ratio_high >= pair.ratio * 1.25 * (1 - 1e-9)
    assert pair.ratio_low <= pair.ratio / 1.25 * (1 + 1e-9)


def test_a_disturbed_calibration_is_taken_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one measurement, two, four: a program that ran when a search began must not leave all its intervals wide."""
    meter, taken = HostMeter(get_host(HOST), DEPLOYMENT, calibration_seconds=BRIEF), []
    busy = "other processes used 1.9 of 2 cores, of which the measurement needs 1"
    usual, until = meter._time, 3

    def timed(baseline: Any, candidate: Any, max_seconds: float, target: float, patience: float = 3.0) -> PairedLatency:
        pair = replace(usual(baseline, candidate, max_seconds, target, patience), contention=None)
        if target == 0.005:  # a calibration
            taken.append(len(measured))
            return replace(pair, ratio=1.25 if len(taken) < until else 1.002, contention=busy if len(taken) < until else None)
        return pair

    measured: list[PairedLatency] = []
    monkeypatch.setattr(meter, "_time", timed)
    for _ in range(6):
        measured.append(meter.measure_stage(1, SGE, BRIEF))
    assert taken == [0, 1, 3]
    assert [pair.calibration for pair in measured] == pytest.approx([math.log(1.25)] * 3 + [math.log(1.002)] * 3)
    assert [pair.contention for pair in measured] == [f"while equal models were compared {busy}"] * 3 + [None] * 3
    assert all(pair.ratio_high >= 1.25 * pair.ratio * (1 - 1e-9) for pair in measured[:3])


def test_a_calibration_that_came_out_right_though_disturbed_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = HostMeter(get_host(HOST), DEPLOYMENT, calibration_seconds=BRIEF)
    meter.calibration = kept = replace(meter.calibration, ratio=1.004, contention="the machine's host took 7% of a core")
    pairs = [meter.measure_stage(1, SGE, BRIEF) for _ in range(3)]
    assert meter.calibration is kept
    assert not any("equal models" in (pair.contention or "") for pair in pairs)


def test_the_hosts_own_resolution_unless_given() -> None:
    assert HostMeter(get_host(HOST), Deployment()).images.shape == (1, 3, 224, 224)
    assert HostMeter(get_host(HOST), Deployment(resolution=32, batch=2)).images.shape == (2, 3, 32, 32)


class Diary:
    """What happens while a meter works: its hours alone with the device, and every model that is built meanwhile."""

    def __init__(self) -> None:
        self.inside = self.fails = False
        self.events: list[str] = []
        self.layouts: set[bool] = set()  # whether what ran was given images and features in channels-last format

    @contextmanager
    def alone(self) -> Iterator[None]:
        assert not self.inside
        self.inside = True
        self.events.append("alone")
        try:
            yield
        finally:
            self.inside = False

    def host(self) -> Host:
        """ResNet-18 that notes when its models are built, cut and run."""
        diary, plain = self, get_host(HOST)

        class Noted(Host):
            def build(self, *args: Any, **kwargs: Any) -> nn.Module:
                diary.events.append("build inside" if diary.inside else "build")
                model = plain.build(*args, **kwargs)
                model.register_forward_hook(diary.ran)
                return model

            def stage_of(self, *args: Any, **kwargs: Any) -> Any:
                diary.events.append("cut inside" if diary.inside else "cut")
                stage = plain.stage_of(*args, **kwargs)
                stage.register_forward_hook(diary.ran)
                return stage

        return Noted(plain.name, plain.family, plain.plain_model, plain.resolution)

    def ran(self, _module: nn.Module, args: tuple[Tensor, ...], _output: Tensor) -> None:
        self.layouts.add(args[0].is_contiguous(memory_format=torch.channels_last))
        if self.fails and self.inside:
            raise RuntimeError("out of memory")
        event = "run inside" if self.inside else "run"
        if self.events[-1] != event:
            self.events.append(event)


def test_only_the_timing_has_the_device_alone() -> None:
    """Models are built and prepared, which checks one output, while others may use it."""
    diary = Diary()
    meter = HostMeter(diary.host(), DEPLOYMENT, diary.alone, calibration_seconds=BRIEF)
    assert diary.events == []
    meter.measure(Placement.parse("sge_g8,none,none,none"), BRIEF)
    meter.measure_stage(1, SGE, BRIEF)
    meter.measure_stage(1, Attention.parse("none"), BRIEF)
    assert not diary.inside
    assert diary.events.count("alone") == 4  # the calibration and three measurements
    assert {"build", "cut", "run", "run inside"} <= set(diary.events)
    assert not {"build inside", "cut inside"} & set(diary.events)
    timed = [after for event, after in zip(diary.events, diary.events[1:], strict=False) if event == "alone"]
    assert timed == ["run inside"] * 4


def test_the_device_is_given_back_when_a_measurement_fails() -> None:
    diary = Diary()
    diary.fails = True
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeFailure, match="runtime 'eager' failed during the measurement: RuntimeError: out of memory"):
        HostMeter(diary.host(), DEPLOYMENT, diary.alone).measure(Placement.parse("eca,none,none,none"), BRIEF)
    assert diary.events[-1] == "alone" and not diary.inside
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_host_and_its_stages_are_given_the_memory_format_of_the_deployment(channels_last: bool) -> None:
    diary = Diary()
    meter = HostMeter(diary.host(), replace(DEPLOYMENT, channels_last=channels_last), calibration_seconds=BRIEF)
    meter.measure(Placement.parse("sge_g8,none,none,none"), BRIEF)
    assert is_sane(meter.measure_stage(1, SGE, BRIEF))
    assert diary.layouts == {channels_last}


def test_what_is_measured_again_is_not_built_again() -> None:
    diary = Diary()
    meter = HostMeter(diary.host(), DEPLOYMENT, diary.alone, calibration_seconds=BRIEF)
    meter.measure_stage(1, SGE, BRIEF)
    once = len([e for e in diary.events if e in ("build", "cut")])
    meter.measure_stage(1, SGE, BRIEF)
    assert len([e for e in diary.events if e in ("build", "cut")]) == once + 1  # the stage with the attention alone
    assert diary.events.count("alone") == 3


def test_what_cannot_run_is_named(meter: HostMeter, broken_attention: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        meter.measure_stage(1, Attention.parse(broken_attention), BRIEF)
    assert str(caught.value) == "runtime 'eager' cannot run Stage(1: broken): RuntimeError: no kernel for this"
    with pytest.raises(RuntimeFailure) as caught:
        meter.measure(Placement.parse(f"none,{broken_attention}@last,none,none"), BRIEF)
    assert str(caught.value).endswith("(none,broken@last,none,none): RuntimeError: no kernel for this")


class Network(nn.Module):
    """Two stages of two blocks each, which do not simply follow one another: *how*."""

    def __init__(self, how: str = "chain") -> None:
        super().__init__()
        self.how = how
        self.blocks = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = self.blocks
        x = b(a(x))
        if self.how == "skip":
            return d(c(x) + x)
        if self.how == "keyword":
            return d(c(input=x))
        if self.how == "unused":
            return d(x)
        return d(c(x))


def cut(model: Network) -> list[Tensor]:
    a, b, c, d = model.blocks
    return stage_inputs(model, [[a, b], [c, d]], torch.ones(1, 3, 4, 4), "net")


def test_the_inputs_of_the_stages() -> None:
    model = Network().eval()
    first, second = cut(model)
    assert torch.equal(first, torch.ones(1, 3, 4, 4))
    assert torch.equal(second, model.blocks[1](model.blocks[0](first)))
    assert not any(block._forward_hooks for block in model.blocks)  # nothing is left behind


@pytest.mark.parametrize("how", ["skip", "keyword", "unused"])
def test_blocks_that_do_not_follow_one_another_cannot_be_run_alone(how: str) -> None:
    with pytest.raises(NasattnError) as caught:
        cut(Network(how))
    assert str(caught.value) == "stage 2 of net cannot be run by itself: its blocks do not take each other's output alone"


HOSTS = [
    "nasattn_resnet18",
    "nasattn_efficientnet_b0",
    "nasattn_mobilenetv3_small_100",
    "nasattn_convnext_atto",
    "nasattn_regnety_002",
    "van_b0",
    "boat_swin_tiny",
    "boat_cswin_tiny",
]


@pytest.mark.parametrize("name", HOSTS)
def test_a_stage_by_itself_computes_what_it_computes_in_the_network(name: str) -> None:
    host = get_host(name)
    native, plain = host.build(host.native).eval(), host.build(host.plain()).eval()
    weights = native.state_dict()
    plain.load_state_dict({key: weights[key] for key in plain.state_dict()})
    stages = host.stage_blocks(plain)
    outputs: list[Tensor] = []
    hooks = [blocks[-1].register_forward_hook(lambda _module, _args, output: outputs.append(output)) for blocks in stages]
    inputs = stage_inputs(plain, stages, DEPLOYMENT.images(), name)
    for hook in hooks:
        hook.remove()
    assert len(inputs) == len(outputs) == len(host.stages)
    with torch.no_grad():
        for number, (x, expected) in enumerate(zip(inputs, outputs, strict=True), start=1):
            stage = host.stage_of(native, number, Attention.parse("none")).eval()
            torch.testing.assert_close(stage(x), expected)


def test_a_stage_with_an_attention_computes_what_it_computes_in_the_network() -> None:
    host = get_host(HOST)
    placed = host.build("none,ela_l,none,none").eval()
    stages = host.stage_blocks(placed)
    outputs: list[Tensor] = []
    hook = stages[1][-1].register_forward_hook(lambda _module, _args, output: outputs.append(output))
    x = stage_inputs(placed, stages, DEPLOYMENT.images(), HOST)[1]
    hook.remove()
    stage = host.stage_of(host.build(host.native), 2, Attention.parse("ela_l")).eval()
    stage.load_state_dict({key.removeprefix("layer2."): v for key, v in placed.state_dict().items() if key.startswith("layer2.")})
    with torch.no_grad():
        torch.testing.assert_close(stage(x), outputs[0])
