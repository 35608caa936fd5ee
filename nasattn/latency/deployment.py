"""How a model will be run: everything besides the architecture that its latency depends on, as the user says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from nasattn.errors import UsageError, did_you_mean
from nasattn.latency.runtime import get_runtime

DEVICES = ("cpu", "cuda")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Deployment:
    """How a model will be run.

    Attributes:
        device: ``cpu`` or ``cuda``.
        runtime: ``eager``, ``compile``, ``cudagraph`` (CUDA) or ``onnxruntime`` (CPU, the extra ``onnx``).
        batch: Images at once.
        resolution: Side of the images in pixels; None: the host's own.
        dtype: Of weights and images: ``float32``, on CUDA also ``float16`` and ``bfloat16``.
        threads: CPU threads of one forward. One by default: several threads on a machine that does anything else wait for
            each other, and then no ratio of times means anything (measured on two cores of which one was busy: intervals of
            +-30 % with two threads, of +-2 % with one).
        channels_last: Keep weights and images in torch's channels-last memory format.

    Raises:
        UsageError: A value that is not allowed, a device that is not here, or a runtime that the device lacks.
    """

    device: str = "cpu"
    runtime: str = "eager"
    batch: int = 1
    resolution: int | None = None
    dtype: str = "float32"
    threads: int = 1
    channels_last: bool = False

    def __post_init__(self) -> None:
        check_device(self.device)
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise UsageError(f"unknown dtype {self.dtype!r}: {did_you_mean(str(self.dtype), DTYPES)}allowed: {', '.join(DTYPES)}")
        for name in ("batch", "threads", "resolution"):
            value = getattr(self, name)
            if (value is None and name == "resolution") or (type(value) is int and value >= 1):
                continue
            raise UsageError(f"{name} must be an integer >= 1, got {value!r}")
        if not isinstance(self.channels_last, bool):
            raise UsageError(f"channels_last must be true or false, got {self.channels_last!r}")
        get_runtime(str(self.runtime), self.device).check_dtype(DTYPES[self.dtype], self.device)

    def at(self, resolution: int) -> Deployment:
        """This deployment with the host's *resolution* where none is given."""
        return self if self.resolution is not None else replace(self, resolution=resolution)

    def images(self, channels: int = 3) -> torch.Tensor:
        """Random images: ``(batch, channels, resolution, resolution)``, the same in every process, as the model will be given them."""
        assert self.resolution is not None
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, channels, self.resolution, self.resolution, generator=generator)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return images.to(self.device, DTYPES[self.dtype], memory_format=layout)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run torch with this many threads for a while."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "") -> Deployment:
        """Raises UsageError for unknown keys and for values that are not allowed."""
        known = [f.name for f in fields(cls)]
        for key in data:
            if key not in known:
                raise UsageError(f"{where}unknown key {key!r}; {did_you_mean(str(key), known)}allowed: {', '.join(known)}")
        try:
            return cls(**data)
        except UsageError as error:
            raise UsageError(f"{where}{error}") from None


def check_device(device: str) -> None:
    """Raises UsageError for an unknown device, or for ``cuda`` where torch finds no GPU."""
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}: allowed: {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda': torch finds no GPU here; use --device cpu")
