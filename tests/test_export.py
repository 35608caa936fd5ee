"""An exported folder is a timm model: it reloads with the same weights, as a backbone too, and says what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import yaml

from nasattn.errors import NasattnError, UsageError
from nasattn.export import WRITTEN, Exported, _prove, export_placement
from nasattn.hosts import get_host
from nasattn.search.study import make_config
from nasattn.store import EvaluationRecord, LatencyRecord, StudyRecord
from tests.image_folders import fill

PLACEMENT = "sb,sge_g32,ela_l,none"
TIMM_SCRIPTS = os.environ.get("NASATTN_TIMM_SCRIPTS", "")  # timm's repository: its wheel has no train.py


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_placement(*records(), None, tmp_path_factory.mktemp("export") / "model")


def records() -> tuple[StudyRecord, EvaluationRecord]:
    config = make_config({"space": "resnet18_stages", "task": "digits"})
    latency = LatencyRecord(12.0, 10.0, 1.2, 1.19, 1.21, 12, settled=True, exclusive=True)
    trial = EvaluationRecord(
        7, PLACEMENT, "COMPLETE", 0, 11_000_000, 1_900_000_000, config.fidelity.to_dict(), "id", latency, accuracy=0.9, val_samples=450
    )
    return StudyRecord("digits18", config.to_dict(), {"torch": torch.__version__}, 0), trial


def test_timm_reads_it_back(exported: Exported) -> None:
    torch.manual_seed(0)
    expected = get_host("nasattn_resnet18").build(PLACEMENT, num_classes=10).eval()
    model = timm.create_model(f"local-dir:{exported.folder}", pretrained=True).eval()
    assert model.placement == PLACEMENT
    assert all(torch.equal(a, b) for a, b in zip(expected.state_dict().values(), model.state_dict().values(), strict=True))
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(expected(images), model(images))


def test_it_is_a_backbone_of_four_stages(exported: Exported) -> None:
    model = timm.create_model(f"local-dir:{exported.folder}", pretrained=True, features_only=True, out_indices=(1, 2, 3, 4))
    assert [f.shape[1] for f in model(torch.randn(1, 3, 64, 64))] == [64, 128, 256, 512]


def test_a_segmentation_model_takes_it_as_its_encoder(exported: Exported) -> None:
    import segmentation_models_pytorch as smp

    segmenter = smp.Unet(f"tu-local-dir:{exported.folder}", encoder_weights=True, classes=2).eval()
    model = timm.create_model(f"local-dir:{exported.folder}", pretrained=True, features_only=True).eval()
    images = torch.randn(1, 3, 64, 96)
    assert segmenter(images).shape == (1, 2, 64, 96)
    torch.testing.assert_close(segmenter.encoder(images)[-1], model(images)[-1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_it_leaves_torch_as_a_graph_and_for_onnx_runtime(exported: Exported, tmp_path: Path) -> None:
    import onnxruntime

    model = timm.create_model(f"local-dir:{exported.folder}", pretrained=True).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images), expected)
    torch.onnx.export(program, f=tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-3)


def test_another_number_of_classes_keeps_the_attention(exported: Exported) -> None:
    model = timm.create_model(f"local-dir:{exported.folder}", pretrained=True, num_classes=3)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)


def test_the_config_says_where_it_comes_from(exported: Exported) -> None:
    config = json.loads((exported.folder / "config.json").read_text())
    assert config["architecture"] == "nasattn_resnet18"
    assert config["label_names"] == [str(i) for i in range(10)]
    assert (config["nasattn"]["study"], config["nasattn"]["trial"], config["nasattn"]["placement"]) == ("digits18", 7, PLACEMENT)


def test_the_recipe_builds_the_same_model(exported: Exported) -> None:
    recipe = yaml.safe_load((exported.folder / "train.yaml").read_text())
    assert recipe["device_modules"] == ["nasattn"]
    model = timm.create_model(recipe["model"], num_classes=recipe["num_classes"], **recipe["model_kwargs"])
    assert model.placement == PLACEMENT


@pytest.mark.skipif(not TIMM_SCRIPTS, reason="NASATTN_TIMM_SCRIPTS names no folder with timm's train.py")
def test_timms_training_script_takes_the_recipe_unchanged(exported: Exported, tmp_path: Path) -> None:
    """One epoch on eight images; only what makes it short is said beside the recipe."""
    script = str(Path(TIMM_SCRIPTS) / "train.py")
    files = ["--config", str(exported.folder / "train.yaml"), "--data-dir", str(fill(tmp_path / "images")), "--output", str(tmp_path)]
    short = ["--epochs", "1", "--batch-size", "4", "--img-size", "64", "--workers", "0", "--device", "cpu", "--experiment", "run"]
    done = subprocess.run([sys.executable, script, *files, *short], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    written = torch.load(tmp_path / "run" / "last.pth.tar", map_location="cpu", weights_only=False)  # pickled by the run above
    assert written["arch"] == "nasattn_resnet18"
    get_host("nasattn_resnet18").build(PLACEMENT, num_classes=10).load_state_dict(written["state_dict"])


def test_the_card_names_the_figures_and_the_untrained_weights(exported: Exported) -> None:
    card = (exported.folder / "README.md").read_text()
    assert "freshly initialised" in card
    assert PLACEMENT in card and "1.200x" in card and "0.9000 on `digits`" in card
    assert exported.snippet in card


def test_a_folder_in_use_is_left_alone(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not empty.*--force"):
        export_placement(*records(), None, exported.folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        export_placement(*records(), None, tmp_path / "file")


def test_a_folder_that_gives_another_model_is_reported(exported: Exported) -> None:
    other = get_host("nasattn_resnet18").build(PLACEMENT, num_classes=10)
    with pytest.raises(NasattnError, match="gives other weights in a clean process"):
        _prove(other, exported.folder, 64)


def test_names_of_a_study_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made the database chose them; they are quoted, and no file is called by them."""
    monkeypatch.setattr("nasattn.export._prove", lambda model, out, resolution: None)
    name = "../../evil/\0/etc/passwd` | x\n# evil\n[a](http://evil)"
    study, trial = records()
    export_placement(replace(study, name=name, versions={"torch": "`\n# evil"}), trial, None, tmp_path / "here" / "model")
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {f"here/model/{file}" for file in WRITTEN}
    card = (tmp_path / "here/model/README.md").read_text()
    assert "`../../evil/\\x00/etc/passwd' / x # evil [a](http://evil)`, trial 7 |" in card
    assert [line for line in card.splitlines() if line.startswith("#")] == [f"# nasattn_resnet18 with {PLACEMENT}"]
    assert json.loads((tmp_path / "here/model/config.json").read_text())["nasattn"]["study"] == name


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    for name in WRITTEN:
        folder, victim = tmp_path / name, tmp_path / "victim"
        folder.mkdir()
        victim.write_text("mine")
        (folder / name).symlink_to(victim)
        with pytest.raises(UsageError, match=f"{name} in it is a link: remove it, or give another folder"):
            export_placement(*records(), None, folder, force=True)
        assert victim.read_text() == "mine"


@pytest.mark.parametrize("out", ["a\0b", "x" * 5_000, "/dev/null/model"])
def test_what_is_no_folder(out: str) -> None:
    with pytest.raises(UsageError, match="^--out .*give a"):
        export_placement(*records(), None, Path(out))
