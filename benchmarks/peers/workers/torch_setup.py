"""What both peers need before their first import, and one ResNet-18 for both. Imports no flawline.

OpenVINO reports its import to a server unless the package that does so is missing; it is made to look so.

The package index has torchvision built for CUDA only. Beside a CPU build of torch its native library does not load, the
operators that it would register are missing, and `import torchvision` fails where it adds to them. PaDiM uses none of
them, so declaring their names is enough.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_MISSING = "operator torchvision::"
_MOST_OPERATORS = 20
_libraries: list[Any] = []


def prepare() -> list[str]:
    """Silences OpenVINO and imports torchvision, declaring the operators that its native library did not bring.

    Returns:
        Names of the operators that were declared; none where torchvision is whole.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: The import fails for another reason.
    """
    modules: dict[str, Any] = sys.modules
    modules["openvino_telemetry"] = None
    declared: list[str] = []
    while True:
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            if not str(error).startswith(_MISSING) or len(declared) == _MOST_OPERATORS:
                raise
            name = str(error).removeprefix(_MISSING).split()[0]
            make: Any = torch.library.Library
            library = make("torchvision", "FRAGMENT")
            library.define(f"{name}() -> ()")
            _libraries.append(library)
            declared.append(name)
            for module in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
                del sys.modules[module]
        else:
            return declared


def resnet18_state(weights: str) -> dict[str, torch.Tensor]:
    """The state dict of torchvision's ResNet-18 from a weights file.

    See `filled`.
    """
    from torchvision.models import resnet18

    network = resnet18(weights=None)
    return filled(network.state_dict(), weights, network.bn1.eps)


def filled(state: Mapping[str, torch.Tensor], weights: str, epsilon: float) -> dict[str, torch.Tensor]:
    """A state dict of a ResNet with the values of a weights file.

    Weights with batch normalisation folded in become those of a plain network whose normalisations only add the bias:
    mean 0, gain 1, variance 1 less epsilon. What the file lacks behind layer 3 is zero; PaDiM does not read it.

    Args:
        state: Of the network as it was made, by torchvision's names; stays as it is.
        weights: A `.npz` file with arrays, or a `.pth` file with tensors, by the same names.
        epsilon: What the network's normalisations add to a variance.

    Raises:
        ValueError: The file lacks a parameter of layers 1 to 3.
    """
    given = _read(Path(weights))
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        convolution = module.replace("bn", "conv").replace("downsample.1", "downsample.0")
        is_norm = f"{module}.running_mean" in state
        if name in given:
            found[name] = given[name].to(value.dtype).reshape(value.shape)
        elif is_norm and f"{convolution}.bias" in given:
            neutral = {
                "weight": torch.ones_like(value),
                "bias": given[f"{convolution}.bias"],
                "running_mean": torch.zeros_like(value),
                "running_var": torch.ones_like(value) - (epsilon if kind == "running_var" else 0),
            }
            found[name] = neutral.get(kind, value)
        elif name.startswith(("layer4", "fc")) or kind == "num_batches_tracked":
            found[name] = torch.zeros_like(value)
        else:
            raise ValueError(f"{Path(weights).name} has no {name}; expected the weights of ResNet-18")
    return found


def _read(path: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor]
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    else:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    return tensors
