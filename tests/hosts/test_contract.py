"""The contract of every host: timm's network when plain, any placement, weights, copies, features, small and odd images."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn

import nasattn  # noqa: F401  (registers the hosts with timm)
from nasattn.attention import Placement
from nasattn.errors import TokenError
from nasattn.hosts import PlacedBlock, get_host, list_hosts

# a host of every block type, and a placement of it that uses every way to say where
MIXED = {
    "nasattn_resnet18": "sge_g8@shared,sb@last,ela_b@mid,fsla_c4",
    "nasattn_resnet50d": "sge_g16@mid@shared,sb,lka_k7_d2@odd,se@last",
    "nasattn_resnext50_32x4d": "ela_s@b101,sb@even,sge_g32@mid,coord",
    "nasattn_regnety_002": "se,sge_g8@out,sb@odd,ela_b@last@shared",
    "nasattn_regnetx_002": "sge_g8,se,lka_k7_d2@out,fsla_c49@last",
    "nasattn_mobilenetv3_small_100": "sge_g4,ela_k5_c8_n8@out,sb,se@b110",
    "nasattn_mobilenetv2_100": "sge_g8,sb@last,se,ela_k7_c8_n16@mid,none",
    "nasattn_efficientnet_b0": "none,se,sge_g8@out,lka_k7_d2@last,sb",
    "nasattn_efficientnetv2_rw_t": "sge_g8,ese@last,se,sb@last",
    "nasattn_convnext_atto": "sge_g8@shared,ela_k7_c1_n8@mid,lka_k7_d2@last,fsla_c49@last",
    "nasattn_convnextv2_atto": "sge_g8@mid,none,se@shared,none",
    "van_b0": "sge_g8,lka_k7_d2@shared,none,fsla_c25@last",
    "cifar_resnet38": "sge_g8@shared,sb_p6@last,ela_k5_c8_n8@mid",
    "boat_swin_tiny": "fsla_c49,fsla_c25_o0@last,none,fsla_c49",
    "boat_cswin_tiny": "fsla_c49,fsla_c25_o0@last,none,fsla_c49",
}
PLAIN = {h: h.removeprefix("nasattn_") for h in MIXED if h.startswith("nasattn_")}

every_host = pytest.mark.parametrize("name", MIXED)


def create(name: str, attn: str | None = None, seed: int = 0, **kwargs: Any) -> Any:
    torch.manual_seed(seed)
    return timm.create_model(name, **({} if attn is None else {"attn": attn}), **kwargs).eval()


def image(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def enlivened(model: nn.Module) -> nn.Module:
    """Weights that a trained network could have, where fresh ones hide what a block computes: zeroed or tiny scales."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().max() < 0.02 or parameter.ndim == 0:
                parameter.normal_(std=0.2)
    return model


def blocks(model: nn.Module) -> list[PlacedBlock]:
    return [m for m in model.modules() if isinstance(m, PlacedBlock)]


@pytest.mark.parametrize("name", PLAIN)
def test_the_original_form_is_timms_model(name: str) -> None:
    plain, host = create(PLAIN[name]), create(name)
    assert host.placement == str(get_host(name).native)
    assert list(plain.state_dict()) == list(host.state_dict())
    assert all(torch.equal(v, host.state_dict()[k]) for k, v in plain.state_dict().items())
    assert torch.equal(plain(image(64, 64)), host(image(64, 64)))


@every_host
def test_native_placement_is_canonical(name: str) -> None:
    host = get_host(name)
    assert host.placement(host.native) == host.native
    assert sum(p.numel() for p in create(name, str(host.native), device="meta").parameters()) == sum(
        p.numel() for p in create(name, device="meta").parameters()
    )


@every_host
def test_none_removes_every_attention(name: str) -> None:
    model = create(name, "none", device="meta")
    assert set(model.placement.split(",")) == {"none"}
    assert not any(b.inserted for b in blocks(model))
    assert not any(k.split(".")[-2] in ("se", "spatial_gating_unit", "branch") for k in model.state_dict())


@every_host
def test_a_placement_is_where_it_says(name: str) -> None:
    model = create(name, MIXED[name], device="meta")
    host = get_host(name)
    assert host.placement(model.placement) == host.placement(MIXED[name])
    for attention, stage, slots in zip(host.placement(MIXED[name]), host.family.stages(model), host.stages, strict=True):
        carriers = () if attention.form == "none" else attention.where.carriers(len(stage))
        native = [b.native == attention.module_token != "none" and not b.removed and not attention.where.shared for b in stage]
        carrying = [bool(b.inserted) or n for b, n in zip(stage, native, strict=True)]
        assert carrying == [i in carriers for i in range(len(stage))]
        slot = stage[0].slots[attention.where.position or slots.position]
        if attention.form != "widening":
            assert all(slot in b.inserted for b in stage if b.inserted)


@every_host
def test_every_parameter_learns(name: str) -> None:
    model = enlivened(create(name, MIXED[name], num_classes=3, drop_path_rate=0.0)).train()
    y = model(image(64, 64, batch=3))
    assert y.shape == (3, 3)
    nn.functional.cross_entropy(y, torch.tensor([0, 1, 2])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


@every_host
def test_plain_weights_load_into_the_layers_they_fit(name: str) -> None:
    weights = create(name, "none" if name.startswith("boat") else None, seed=1).state_dict()
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(weights)}}
    model = create(name, MIXED[name], **overlay)
    own = {f"{n}.{s}." for n, b in model.named_modules() if isinstance(b, PlacedBlock) for s in b.inserted}
    untouched = [k for k in model.state_dict() if not k.startswith(tuple(own))]
    assert untouched and all(torch.equal(model.state_dict()[k], weights[k]) for k in untouched)
    key = next(k for k in weights if k in untouched and k.endswith("weight"))
    del weights[key]
    with pytest.raises(RuntimeError, match=f'Missing key.*"{key}"'):
        create(name, MIXED[name], pretrained=True, pretrained_cfg_overlay={"state_dict": weights})


@every_host
def test_identity_start_leaves_the_function_unchanged(name: str) -> None:
    plain = enlivened(create(name, "none"))
    kept = {k: v.clone() for k, v in plain.state_dict().items()}
    placed = create(name, without_native(name), identity_start=True)
    placed.load_state_dict({**placed.state_dict(), **kept})
    x = image(64, 96)
    torch.testing.assert_close(placed(x), plain(x), rtol=1e-5, atol=1e-5)
    for module in placed.modules():  # as timm's init_weights does with every module that offers it
        if hasattr(module, "zero_init_last") and not isinstance(module, PlacedBlock):
            module.zero_init_last()
    torch.testing.assert_close(placed(x), plain(x), rtol=1e-5, atol=1e-5)
    if hasattr(placed, "init_weights"):
        placed.init_weights()
        plain.load_state_dict({k: placed.state_dict()[k] for k in plain.state_dict()})
        torch.testing.assert_close(placed(x), plain(x), rtol=1e-5, atol=1e-5)
    placed.train()(image(64, 64, batch=3)).sum().backward()
    assert any(p.grad is not None and p.grad.any() for k, p in placed.named_parameters() if k.endswith("strength"))


def without_native(name: str) -> str:
    """The mixed placement, with another attention where the host would keep its own."""
    host = get_host(name)
    native = {str(b.native) for s in host.family.stages(create(name, device="meta")) for b in s}
    return ",".join("eca" if a.module_token in native - {"none"} else str(a) for a in Placement.parse(MIXED[name]))


@every_host
def test_a_saved_placement_comes_back(name: str, tmp_path: Path) -> None:
    model = enlivened(create(name, MIXED[name], num_classes=5)).eval()
    save_for_hf(model, tmp_path, safe_serialization=True)
    back = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert back.placement == model.placement
    assert list(back.state_dict()) == list(model.state_dict())
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in model.state_dict().items())
    x = image(64, 64)
    torch.testing.assert_close(back(x), model(x))
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True).eval()
    final, intermediates = model.forward_intermediates(x)
    torch.testing.assert_close(final, model.forward_features(x))
    for feature, intermediate in zip(features(x)[::-1], intermediates[::-1], strict=False):
        torch.testing.assert_close(feature, intermediate)


@pytest.mark.parametrize("name", [n for n in MIXED if n != "cifar_resnet38"])  # they ask for four levels, up to a reduction of 32
def test_segmentation_models_take_an_export(name: str, tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    model = enlivened(create(name, MIXED[name], num_classes=5))
    save_for_hf(model, tmp_path, safe_serialization=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        segmenter = smp.Unet(f"tu-local-dir:{tmp_path}", encoder_weights="imagenet", classes=2).eval()
    assert segmenter(image(64, 64)).shape == (2, 2, 64, 64)
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True).eval()
    encoded = segmenter.encoder(image(64, 64))
    torch.testing.assert_close(encoded[-1], features(image(64, 64))[-1])


@every_host
def test_copies_give_the_same(name: str) -> None:
    model, x = enlivened(create(name, MIXED[name], num_classes=3)), image(64, 64)
    expected = model(x)
    fresh = create(name, MIXED[name], num_classes=3, seed=5)
    fresh.load_state_dict(model.state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fresh):
        torch.testing.assert_close(twin(x), expected, rtol=0, atol=0)


@every_host
def test_any_image_any_layout(name: str) -> None:
    model = enlivened(create(name, MIXED[name], num_classes=3, in_chans=1)).eval()
    plain = create(name, "none", num_classes=3, in_chans=1)
    for size in [(1, 1), (1, 3), (2, 2), (33, 33), (64, 40), (97, 130)]:
        for batch in (0, 1, 3):
            x = image(*size, batch=batch)[:, :1]
            if _takes(plain, x):  # no attention asks for more than its host: CSWin's begins at 3 px
                assert model(x).shape == (batch, 3), (size, batch)
            else:
                assert min(size) < 32 or batch == 0, f"the plain host itself refuses {tuple(x.shape)}"
    x = image(64, 96)[:, :1]
    expected = model(x)
    torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=1e-4, atol=1e-4)
    last = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x.to(memory_format=torch.channels_last)), expected, rtol=1e-3, atol=1e-3)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert model(x).isfinite().all()


def _takes(model: nn.Module, x: Tensor) -> bool:
    try:
        model(x)
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


def in_every_run(*those: str) -> list[Any]:
    """Graphs take seconds to make: *those* hosts' are made in every run, the others' in that of the slow tests."""
    return [n if n in those else pytest.param(n, marks=pytest.mark.slow) for n in MIXED]


@pytest.mark.parametrize("name", in_every_run("nasattn_resnet18", "nasattn_convnextv2_atto"))
def test_a_graph_gives_the_same(name: str) -> None:
    model, x = enlivened(create(name, MIXED[name], num_classes=3)), image(64, 64)
    expected = model(x)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected, rtol=1e-4, atol=1e-4)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for y in (x, image(96, 64, batch=3)):
        torch.testing.assert_close(compiled(y), model(y), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@every_host
def test_onnx_runtime_gives_the_same(name: str, tmp_path: Path) -> None:
    import onnxruntime

    model, x = enlivened(create(name, MIXED[name], num_classes=3)), image(64, 64)
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", in_every_run("nasattn_resnet18", "nasattn_efficientnet_b0"))
def test_torchscript_takes_what_timms_model_does(name: str) -> None:
    x = image(64, 64)
    for attn in (None, "none") if name in PLAIN else ():
        model = create(name, attn)
        torch.testing.assert_close(torch.jit.script(model)(x), model(x))
    placed = enlivened(create(name, MIXED[name]))  # our attentions are traced
    torch.testing.assert_close(torch.jit.trace(placed, x)(x), placed(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stem_stride", [1, 2, 4])
@every_host
def test_a_proxy_trains(name: str, stem_stride: int) -> None:
    host = get_host(name)
    for width, kept in ((0.125, 1), (0.25, 2)):
        model = host.build_proxy(MIXED[name], width=width, blocks=kept, stem_stride=stem_stride, num_classes=4, in_chans=1)
        assert model.placement == str(host.proxy_placement(MIXED[name], width, kept))
        y = model(image(48, 48, batch=4)[:, :1])
        nn.functional.cross_entropy(y, torch.tensor([0, 1, 2, 3])).backward()
        assert y.shape == (4, 4) and y.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in create(name, device="meta").parameters()) / 4
    carried = Placement.parse(model.placement)
    assert [a.form for a in carried] == [a.form for a in host.placement(MIXED[name])]


@pytest.mark.parametrize(
    ("name", "placement", "message"),
    [
        ("nasattn_resnet50", "sge@b1010,none,none,none", "does not fit stage 1 of nasattn_resnet50: the mask '@b1010' has 4 digits, the stage has 3"),
        ("nasattn_resnet50", "sb@mid,none,none,none", "it widens the block's spatial convolution, so it takes no position; drop @mid"),
        ("nasattn_resnet50", "none,none,sge_g512@mid,none", "512 groups do not divide 256 channels"),
        ("nasattn_convnext_tiny", "sb,none,none,none", "no spatial convolution that can be widened"),
        ("nasattn_efficientnet_b0", "none,sge_g8@shared,none,none,none", "blocks of 96, 144 channels cannot share one module"),
        ("van_b0", "sge_g8@out,none,none,none", "this host has no position @out; allowed: @mid"),
        ("boat_swin_tiny", "sge_g8,none,none,none", "this host carries only attentions that are a branch, and this one is a gate"),
        ("nasattn_regnety_008", "se@even,none,none,none", "'@even' leaves no block in a stage of 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_said(name: str, placement: str, message: str) -> None:
    with pytest.raises(TokenError, match=message):
        get_host(name).placement(placement)


def test_the_same_placement_has_one_name() -> None:
    host = get_host("nasattn_resnet18")
    for text in ("sge_g8@b01,none,none,none", "sge_g8@even,none,none,none", "sge_g8@last@out@shared,none,none,none"):
        assert str(host.placement(text)) == "sge_g8@last,none,none,none"
    assert str(host.placement("sge_g8@b11@shared,none,none,none")) == "sge_g8@shared,none,none,none"


def test_shared_parameters_count_once() -> None:
    counts = {a: sum(p.numel() for p in create("nasattn_resnet50", f"{a},none,none,none", device="meta").parameters()) for a in
              ("none", "ela_l", "ela_l@shared", "ela_l@last", "ela_l@mid")}  # fmt: skip
    one = 58 * 256
    assert counts["ela_l"] - counts["none"] == 3 * one
    assert counts["ela_l@shared"] - counts["none"] == counts["ela_l@last"] - counts["none"] == one
    assert counts["ela_l@mid"] - counts["none"] == 3 * one // 4


def test_native_squeeze_and_excitation() -> None:
    assert str(get_host("nasattn_mobilenetv3_large_100").native) == "none,none,se,se@b000011,se"
    assert str(get_host("nasattn_regnety_008").native) == "se,se,se,se"
    assert str(get_host("boat_swin_tiny").native) == "fsla_c49@last,fsla_c49@last,fsla_c49@even,none"
    assert str(get_host("van_b2").native) == ",".join(["lka_k21_d3"] * 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_hosts())
def test_every_host_builds_plain_native_and_with_an_attention(name: str) -> None:
    host = get_host(name)
    for placement in (str(host.plain()), str(host.native)):
        create(name, placement, device="meta")(torch.empty(1, 3, 64, 64, device="meta"))
        host.build_proxy(placement, width=0.25, blocks=1, stem_stride=2, num_classes=2, device="meta")
    create(name, "fsla_c49@last" if name.startswith("boat") else "sge_g1@last", device="meta")


def test_an_identity_start_is_saved_with_the_model(tmp_path: Path) -> None:
    model = create("nasattn_resnet18", "sge_g8,sb,fsla_c4@last,ela_b@shared", identity_start=True, num_classes=4)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("strength"):
                parameter.fill_(0.5)
    save_for_hf(model, tmp_path, safe_serialization=True)
    back = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(back(image(64, 64)), model(image(64, 64)))
