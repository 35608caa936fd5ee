"""A deployment: one line for every mistake, the same images everywhere, and threads that are given back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nasattn.errors import UsageError
from nasattn.latency import Deployment, check_device

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
NO_GPU = "device 'cuda': torch finds no GPU here; use --device cpu"


def refused(**values: Any) -> str:
    with pytest.raises(UsageError) as caught:
        Deployment(**values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults() -> None:
    assert Deployment() == Deployment("cpu", "eager", 1, None, "float32", 1, False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu': allowed: cpu, cuda"),
        ({"device": "cuda:0"}, "unknown device 'cuda:0': allowed: cpu, cuda"),
        ({"device": None}, "unknown device None: allowed: cpu, cuda"),
        ({"dtype": "float23"}, "unknown dtype 'float23': Did you mean 'float32'"),
        ({"dtype": "int8"}, "unknown dtype 'int8': allowed: float32, float16, bfloat16"),
        ({"dtype": 32}, "unknown dtype 32: allowed: float32, float16, bfloat16"),
        ({"batch": 0}, "batch must be an integer >= 1, got 0"),
        ({"batch": None}, "batch must be an integer >= 1, got None"),
        ({"batch": True}, "batch must be an integer >= 1, got True"),
        ({"batch": "1"}, "batch must be an integer >= 1, got '1'"),
        ({"threads": -1}, "threads must be an integer >= 1, got -1"),
        ({"threads": 1.0}, "threads must be an integer >= 1, got 1.0"),
        ({"resolution": 0}, "resolution must be an integer >= 1, got 0"),
        ({"resolution": 224.5}, "resolution must be an integer >= 1, got 224.5"),
        ({"channels_last": "yes"}, "channels_last must be true or false, got 'yes'"),
        ({"channels_last": 1}, "channels_last must be true or false, got 1"),
        ({"runtime": "compiled"}, "unknown runtime 'compiled'. Did you mean 'compile'? Allowed: eager, compile, cudagraph, onnxruntime"),
        ({"runtime": None}, "unknown runtime 'None'"),
        ({"runtime": "cudagraph"}, "runtime 'cudagraph' runs on cuda, not on 'cpu'; runtimes of that device: eager, compile, onnxruntime"),
        ({"dtype": "float16"}, "runtime 'eager' on cpu takes no images in torch.float16; allowed: torch.float32"),
        ({"dtype": "bfloat16", "runtime": "onnxruntime"}, "runtime 'onnxruntime' on cpu takes no images in torch.bfloat16"),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_is_allowed(values: dict[str, Any], message: str) -> None:
    assert refused(**values).startswith(message)


@without_cuda
@pytest.mark.parametrize("values", [{}, {"runtime": "cudagraph"}, {"dtype": "float16"}, {"batch": 0}])
def test_cuda_is_refused_where_there_is_none(values: dict[str, Any]) -> None:
    assert refused(device="cuda", **values) == NO_GPU
    with pytest.raises(UsageError, match=NO_GPU):
        check_device("cuda")


def test_a_device_that_is_here() -> None:
    check_device("cpu")


def test_the_hosts_resolution_fills_in_where_none_is_given() -> None:
    assert Deployment(batch=4).at(224) == Deployment(batch=4, resolution=224)
    given = Deployment(resolution=96)
    assert given.at(224) is given


@pytest.mark.parametrize(("channels_last", "layout"), [(False, torch.contiguous_format), (True, torch.channels_last)])
def test_the_images_are_as_the_model_will_be_given_them(channels_last: bool, layout: torch.memory_format) -> None:
    images = Deployment(batch=2, resolution=17, channels_last=channels_last).images()
    assert (images.shape, images.dtype, images.device.type) == ((2, 3, 17, 17), torch.float32, "cpu")
    assert images.is_contiguous(memory_format=layout)
    assert images.std() > 0.9
    assert Deployment(resolution=8).images(channels=1).shape == (1, 1, 8, 8)


def test_the_images_are_the_same_whatever_was_drawn_before() -> None:
    deployment = Deployment(batch=2, resolution=16)
    images = deployment.images()
    torch.randn(7)
    before = torch.get_rng_state()
    assert torch.equal(deployment.images(), images)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(Deployment(batch=2, resolution=16, channels_last=True).images(), images)


def test_the_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with Deployment(threads=before + 1).applied():
        assert torch.get_num_threads() == before + 1
        with Deployment(threads=before + 2).applied():
            assert torch.get_num_threads() == before + 2
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_threads_are_given_back_after_an_exception() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt), Deployment(threads=before + 1).applied():
        raise KeyboardInterrupt
    assert torch.get_num_threads() == before


def test_it_comes_back_from_a_mapping() -> None:
    deployment = Deployment(runtime="compile", batch=8, resolution=96, threads=2, channels_last=True)
    assert Deployment.from_dict(deployment.to_dict()) == deployment
    assert Deployment.from_dict({}) == Deployment()
    assert Deployment.from_dict({"batch": 2}) == Deployment(batch=2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"batchsize": 2},
            "study.yaml: deployment: unknown key 'batchsize'; Did you mean 'batch'? "
            "allowed: device, runtime, batch, resolution, dtype, threads, channels_last",
        ),
        ({"thread": 2}, "study.yaml: deployment: unknown key 'thread'; Did you mean 'threads'"),
        ({7: 2}, "study.yaml: deployment: unknown key 7; allowed: device, "),
    ],
)
def test_an_unknown_key_names_the_closest(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Deployment.from_dict(data, "study.yaml: deployment: ")
    assert str(caught.value).startswith(message)


def test_a_wrong_value_in_a_mapping_is_refused_as_well() -> None:
    with pytest.raises(UsageError, match="batch must be an integer >= 1, got 0"):
        Deployment.from_dict({"batch": 0})


def test_a_deployment_does_not_change() -> None:
    deployment = Deployment()
    with pytest.raises(AttributeError):
        deployment.batch = 2  # type: ignore[misc]
    assert hash(deployment) == hash(Deployment())
