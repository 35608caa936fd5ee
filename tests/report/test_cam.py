"""Grad-CAM on proxies that are trained again, on a task of seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nasattn.errors import StudyError
from nasattn.report.cam import Looks, choose, heat, look, section
from nasattn.report.page import render
from nasattn.report.study_data import StudyData, gather
from nasattn.store import Store
from tests.report.studies import PLAIN, add_study, add_trials

pytest.importorskip("pytorch_grad_cam")
FIDELITY = {"samples": 200, "val_samples": 100, "resolution": 24, "epochs": 1}


@pytest.fixture(scope="module")
def data() -> Iterator[StudyData]:
    store = Store("sqlite://")
    add_study(store, "s", task="digits", fidelity=FIDELITY)
    add_trials(store, "s", [PLAIN, "none,sge_g32,none,none"])
    yield gather(store, "s")
    store.engine.dispose()


@pytest.fixture(scope="module")
def looks(data: StudyData) -> Looks:
    return look(data)


def test_the_plain_host_comes_first(data: StudyData, looks: Looks) -> None:
    assert [s.placement for s in looks.seen] == [PLAIN, "none,sge_g32,none,none"]
    assert [sorted(s.maps) for s in looks.seen] == [[4], [2, 4]]
    assert len(looks.images) == len(looks.labels) == 6 and looks.labels == ("0", "2", "4", "5", "7", "9")
    assert all(len(maps) == 6 for s in looks.seen for maps in s.maps.values())
    assert looks.seen[0].maps[4] != looks.seen[1].maps[4]


def test_the_page_shows_them(data: StudyData, looks: Looks) -> None:
    page = render(data, section(looks))
    assert page.count('src="data:image/jpeg;base64,') == 6 * 4
    assert "end of stage 2 (sge_g32)" in page and "when the study trained it" in page and "--cam" not in page


def test_who_is_looked_through() -> None:
    store = Store("sqlite://")
    add_study(store, "s")
    add_trials(store, "s", [PLAIN])
    assert choose(gather(store, "s")) == []
    with pytest.raises(StudyError, match="no member of a front beside the plain host"):
        look(gather(store, "s"))
    of = ["none,sge_g32,none,none", "none,ela_t,none,none", "none,lka_k21_d3,none,none", "sge_g32,ela_t,none,none"]
    add_trials(store, "s", of, first=1, noise=0)
    chosen = choose(gather(store, "s"))
    assert len(chosen) == 3 and chosen[0] == "none,lka_k21_d3,none,none" and PLAIN not in chosen
    store.engine.dispose()


class Last(nn.Module):
    """Channels last, as Swin's blocks are."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1) * torch.arange(1.0, 6.0)


@pytest.mark.parametrize(("block", "shape"), [(nn.Conv2d(5, 5, 1), (2, 8, 8)), (Last(), (2, 8, 8)), (nn.Flatten(), None)])
def test_blocks_of_every_layout(block: nn.Module, shape: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 1), block, nn.Flatten(), nn.LazyLinear(4))
    x = torch.rand(2, 3, 8, 8)
    found = heat(model.eval(), block, x, [0, 1])
    assert found is None if shape is None else found.shape == shape and 0 <= found.min() <= found.max() <= 1
