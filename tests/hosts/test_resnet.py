"""ResNets with a placement: the published sizes, timm's weights, Spatial Bias, and timm's ways to build and save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import nasattn.hosts  # noqa: F401  (registers the models)
from nasattn.attention import Attention
from nasattn.errors import TokenError
from nasattn.hosts.resnet import PlacedBasicBlock, PlacedBottleneck

ATTENTION_MODULES = ("se", "sb", "sb_bn", "sb_proj", "attn_mid")
MIXED = "sge_g32,sb,ela_l,fsla_c4"


def create(name: str, attn: Any = None, seed: int = 0, **kwargs: Any) -> nn.Module:
    """With *seed*, and by default without the zeroed last norms that would make every block an identity."""
    torch.manual_seed(seed)
    if attn is not None:
        kwargs["attn"] = attn
    return timm.create_model(name, **{"zero_init_last": False, **kwargs}).eval()


def image(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def of_attention(key: str) -> bool:
    return any(part in ATTENTION_MODULES for part in key.split("."))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "attn", "expected"),
    [
        ("resnet50", "none", 25_557_032),
        ("resnet101", "none", 44_549_160),
        ("resnet18", "sge", 11_690_536),
        ("resnet34", "sge", 21_799_720),
        ("resnet50", "sge", 25_559_080),
        ("resnet101", "sge", 44_553_384),
        ("resnet152", "sge", 60_199_208),
        ("resnet50", "sb,sb,sb,none", 25_986_620),
    ],
)
def test_parameters_of_the_papers(name: str, attn: str, expected: int) -> None:
    assert parameters(create(f"nasattn_{name}", attn, device="meta")) == expected


@pytest.mark.parametrize(
    ("name", "attn", "gmacs"),
    [("resnet50", "none", 4.089), ("resnet50", "sge", 4.089), ("resnet50", "sb,sb,sb,none", 4.115), ("resnet18", "sge", 1.814)],
)
def test_multiplications_of_the_papers(name: str, attn: str, gmacs: float) -> None:
    model = create(f"nasattn_{name}", attn, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=2e-3)  # SGE's products are counted, too


def test_a_placement_is_a_string_a_list_or_one_token() -> None:
    models = [create("nasattn_resnet18", attn, device="meta") for attn in ("sge_g32,none,ela_t,sb", ["sge_g32", "none", "ela_t", "sb"])]
    assert {m.placement for m in models} == {"sge_g32,none,ela_t,sb"}
    assert list(models[0].state_dict()) == list(models[1].state_dict())
    assert create("nasattn_resnet18", "sge", device="meta").placement == "sge_g64,sge_g64,sge_g64,sge_g64"
    assert create("nasattn_resnet18", device="meta").placement == "none,none,none,none"


@pytest.mark.parametrize(
    ("attn", "message"),
    [
        ("none,none,none", "has 3 tokens, the host has 4 stages; give one token a stage"),
        ("sge_g48", "48 groups do not divide 64 channels"),
        ("none,sgee_g8,none,none", "Did you mean 'sge'"),
        ("ela", "choose one"),
        (7, "a placement is a string"),
    ],
)
def test_a_wrong_placement_is_refused(attn: Any, message: str) -> None:
    with pytest.raises(TokenError, match=message):
        create("nasattn_resnet18", attn, device="meta")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_plain_placement_is_timms_model(name: str) -> None:
    plain, placed = create(name), create(f"nasattn_{name}", "none")
    assert list(plain.state_dict()) == list(placed.state_dict())
    assert all(torch.equal(v, placed.state_dict()[k]) for k, v in plain.state_dict().items())
    x = image(64, 64)
    assert torch.equal(plain(x), placed(x))


def test_timms_default_initialisation_zeroes_the_last_norms() -> None:
    plain, placed = (create(n, zero_init_last=True).state_dict() for n in ("resnet18", "nasattn_resnet18"))
    assert not placed["layer1.0.bn2.weight"].any()
    assert all(torch.equal(v, placed[k]) for k, v in plain.items())


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_se_is_timms_se_resnet(name: str) -> None:
    timms = create(f"se{name}", device="meta").state_dict()
    placed = create(f"nasattn_{name}", "se", device="meta").state_dict()
    assert {k: v.shape for k, v in timms.items()} == {k: v.shape for k, v in placed.items()}


def test_one_seed_gives_the_shared_layers_the_same_start() -> None:
    plain = create("nasattn_resnet18", "none").state_dict()
    for attn in (MIXED, "se,lka,cbam,gc"):
        placed = create("nasattn_resnet18", attn).state_dict()
        assert {k for k in placed if not of_attention(k)} == set(plain)
        assert all(torch.equal(v, placed[k]) for k, v in plain.items())


@pytest.mark.parametrize(("name", "attn"), [("resnet18", MIXED), ("resnet18", "se,lka,cbam,gc"), ("resnet50", "sb,sge,ela_t,se")])
def test_plain_weights_load_into_any_placement(name: str, attn: str) -> None:
    weights = create(name, seed=1).state_dict()
    model = create(f"nasattn_{name}", attn, pretrained=True, pretrained_cfg_overlay={"state_dict": weights}).state_dict()
    fresh = create(f"nasattn_{name}", attn).state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in model.items() if not of_attention(k))
    attention = [k for k in model if of_attention(k)]
    assert attention and all(torch.equal(model[k], fresh[k]) for k in attention)


@pytest.mark.parametrize("key", ["layer2.0.conv1.weight", "fc.bias", "bn1.running_mean"])
def test_a_checkpoint_without_a_backbone_key_is_refused(key: str) -> None:
    weights = create("resnet18").state_dict()
    del weights[key]
    with pytest.raises(RuntimeError, match=f'Missing key.*"{key}"'):
        create("nasattn_resnet18", MIXED, pretrained=True, pretrained_cfg_overlay={"state_dict": weights})


def test_a_checkpoint_with_a_strange_key_or_half_the_attention_is_refused() -> None:
    weights = create("resnet18").state_dict()
    with pytest.raises(RuntimeError, match='Unexpected key.*"layer1.9.conv1.weight"'):
        overlay = {"state_dict": {**weights, "layer1.9.conv1.weight": torch.zeros(1)}}
        create("nasattn_resnet18", MIXED, pretrained=True, pretrained_cfg_overlay=overlay)
    weights = create("nasattn_resnet18", MIXED).state_dict()
    del weights["layer3.0.se.gn.bias"]
    with pytest.raises(RuntimeError, match='Missing key.*"layer3.0.se.gn.bias"'):
        create("nasattn_resnet18", MIXED, pretrained=True, pretrained_cfg_overlay={"state_dict": weights})


def test_another_head_and_input_keep_the_backbone() -> None:
    weights = create("resnet18", seed=1).state_dict()
    kwargs = {"num_classes": 7, "in_chans": 1, "pretrained_cfg_overlay": {"state_dict": dict(weights)}}
    model = create("nasattn_resnet18", MIXED, pretrained=True, **kwargs)
    assert model(image(32, 32)[:, :1]).shape == (2, 7)
    state = model.state_dict()
    torch.testing.assert_close(state["conv1.weight"], weights["conv1.weight"].sum(1, keepdim=True))
    assert all(torch.equal(state[k], v) for k, v in weights.items() if not k.startswith(("fc.", "conv1.")))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_spatial_bias_with_a_zero_projection_is_the_plain_network(name: str) -> None:
    plain, placed, x = create(name), create(f"nasattn_{name}", "sb"), image(64, 96, batch=1)
    biased = placed(x)
    for block in placed.modules():
        if isinstance(block, (PlacedBasicBlock, PlacedBottleneck)):
            nn.init.zeros_(block.sb_proj.weight)
    torch.testing.assert_close(placed(x), plain(x), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(biased, plain(x), rtol=1e-3)


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(4)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for value in (m.weight, m.bias, m.running_mean):
                nn.init.normal_(value)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
    return module


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("size", [(13, 10), (7, 24), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [PlacedBasicBlock, PlacedBottleneck])
def test_spatial_bias_is_the_widened_block(kind: type[Any], stride: int, size: tuple[int, int], training: bool) -> None:
    """As the paper writes it: the maps behind the convolution's channels, one norm and one next convolution for both."""
    C = 16 * kind.expansion
    timms = BasicBlock if kind is PlacedBasicBlock else Bottleneck
    block = kind.adopt(timms(C, 16, stride=stride, downsample=nn.Conv2d(C, C, 1, stride)))
    sb = Attention.parse("sb")
    block.widen(block.create_spatial_bias(sb), sb, identity_start=False)
    block = randomised(block).double().train(training)
    x = torch.randn(3, C, *size, dtype=torch.float64)
    conv, norm, after, last = (
        (block.conv1, block.bn1, block.conv2, block.bn2) if kind is PlacedBasicBlock else (block.conv2, block.bn2, block.conv3, block.bn3)
    )
    before = x if kind is PlacedBasicBlock else torch.relu(block.bn1(block.conv1(x)))
    wide = conv(before)
    wide = torch.cat([wide, block.sb(before, size=wide.shape[-2:])], 1)
    affine = [torch.cat([getattr(norm, k), getattr(block.sb_bn, k)]).detach() for k in ("running_mean", "running_var", "weight", "bias")]
    wide = torch.relu(nn.functional.batch_norm(wide, *affine, training=training))
    wide = nn.functional.conv2d(wide, torch.cat([after.weight, block.sb_proj.weight], 1), padding=after.padding)
    expected = torch.relu(last(wide) + block.downsample(x))
    torch.testing.assert_close(block(x), expected)


def test_features_and_intermediates_of_a_placement() -> None:
    x = image(64, 96)
    model = create("nasattn_resnet18", MIXED)
    features = create("nasattn_resnet18", MIXED, features_only=True)
    assert features.feature_info.channels() == [64, 64, 128, 256, 512]
    assert features.feature_info.reduction() == [2, 4, 8, 16, 32]
    final, intermediates = model.forward_intermediates(x)
    torch.testing.assert_close(final, model.forward_features(x))
    for feature, intermediate, reduction in zip(features(x), intermediates, (2, 4, 8, 16, 32), strict=True):
        assert feature.shape[-2:] == (64 // reduction, 96 // reduction)
        torch.testing.assert_close(feature, intermediate)


@pytest.mark.parametrize("attn", [MIXED, ["sb", "se", "none", "lka"]], ids=["string", "list"])
def test_a_saved_model_comes_back(tmp_path: Path, attn: str | list[str]) -> None:
    model = create("nasattn_resnet18", attn, num_classes=5)
    save_for_hf(model, tmp_path, safe_serialization=True)
    back = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert back.placement == model.placement
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in model.state_dict().items())
    x = image(64, 64)
    assert torch.equal(back(x), model(x))
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True).eval()
    torch.testing.assert_close(features(x)[-1], model.forward_features(x))
