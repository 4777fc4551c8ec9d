"""Feature maps by torch, where there is no TensorRT: the same interface, on the memory of whoever scores them."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from flawline.export.features import Exported
from flawline.runtime.errors import FlawlineError, InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.device import first_line

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch", "pip install 'flawline[fit]'")

Precision = Literal["fp16", "fp32"]
_WARMUP = 5


class TorchEngine:
    """A network in torch that reads frames and writes projected feature maps where it is told to.

    It owns the memory that it works in: torch gives it to nothing else, so that a graph that was captured may be replayed.

    Args:
        exported: The network, its preprocessing and the sizes of its maps.
        projection: float32 (d, D).
        precision: "fp16", or "fp32", in which torch may use TF32.
        batch: Frames at once.
        input_address: Of uint8 (batch, height, width, 3).
        output_addresses: Of float32 (batch, d, h, w) per layer.
        capturable: Whether a graph may be made of what it enqueues.

    Attributes:
        name: Of the engine, with its precision.

    Raises:
        InputError: The network is one of an ONNX file, or layers share a map.
        FlawlineError: torch does not see the GPU.
    """

    device = "cuda"

    def __init__(
        self,
        exported: Exported,
        projection: npt.NDArray[np.float32],
        precision: Precision,
        batch: int,
        input_address: int,
        output_addresses: tuple[int, ...],
        *,
        capturable: bool = True,
    ) -> None:
        self._pool: Any = None
        self._prepare()
        self.name = f"torch {precision}"
        self.input, self.outputs, self.capturable = input_address, output_addresses, capturable
        dimension = exported.projection.dimension
        self._frames = self._tensor(input_address, (batch, exported.height, exported.width, 3), np.uint8)
        self._maps = [
            self._tensor(address, (batch, dimension, output.height, output.width), np.float32)
            for address, output in zip(output_addresses, exported.network.outputs, strict=True)
        ]
        self._network: Any = _network(exported, projection, precision, self.device)
        self._runs = _WARMUP

    def enqueue(self, stream: int) -> None:
        """See `GpuEngine`. At the first call, which may not be captured, torch chooses its algorithms and takes memory."""
        try:
            entered = torch.cuda.ExternalStream(stream)  # type: ignore[no-untyped-call]
            for _ in range(self._runs):
                with torch.cuda.use_mem_pool(self._pool), torch.cuda.stream(entered):
                    self._run()
        except RuntimeError as error:
            raise FlawlineError(f"torch failed on a frame: {first_line(error)}") from error
        self._runs = 1

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        self._network = self._pool = None
        self._maps = []

    def _prepare(self) -> None:
        if not torch.cuda.is_available():
            raise FlawlineError("torch sees no GPU; expected a build of torch for CUDA")
        torch.backends.cudnn.benchmark = True
        self._pool = torch.cuda.MemPool()

    def _run(self) -> None:
        if self._network is None:
            raise FlawlineError("the engine is closed")
        with torch.inference_mode():
            for target, found in zip(self._maps, self._network(self._frames), strict=True):
                target.copy_(found)

    def _tensor(self, address: int, shape: Sequence[int], dtype: npt.DTypeLike) -> "torch.Tensor":
        return torch.as_tensor(_Memory(address, shape, dtype), device=self.device)


class _Memory:
    """Memory of the GPU, in the form in which torch takes it for its own."""

    def __init__(self, address: int, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": tuple(shape),
            "typestr": np.dtype(dtype).str,
            "version": 3,
        }


def _network(exported: Exported, projection: npt.NDArray[np.float32], precision: Precision, device: str) -> Any:
    """Frames, uint8 (B, height, width, 3), to a projected map per layer."""
    if exported.module is None:
        raise InputError(f"network {exported.network.name}: it comes from an ONNX file, expected one that torch builds")
    if len(exported.network.outputs) != len(exported.network.layers):
        raise InputError(f"network {exported.network.name}: some layers share a map, expected one to each")
    dtype = {"fp16": torch.float16, "fp32": torch.float32}[precision]
    module = copy.deepcopy(exported.module).to(device=device, dtype=dtype)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = (torch.tensor(values, device=device).reshape(1, 3, 1, 1) for values in (exported.mean, exported.std))
    matrix = torch.tensor(projection[:, :, None, None], device=device, dtype=dtype)

    def run(frames: "torch.Tensor") -> "list[torch.Tensor]":
        image = (frames.permute(0, 3, 1, 2) - mean) / std
        layers = module(image.to(dtype=dtype, memory_format=torch.channels_last))
        parts = torch.split(matrix, [layer.shape[1] for layer in layers], dim=1)
        return [torch.nn.functional.conv2d(layer, part) for layer, part in zip(layers, parts, strict=True)]

    return run
