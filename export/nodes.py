"""Nodes and constants of an ONNX graph that is being written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from onnx import NodeProto, TensorProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")


@dataclass
class Nodes:
    """Nodes and constants, in the order in which they are added.

    Attributes:
        nodes: Each reads what those before it, or constants, or inputs of the graph gave.
        constants: For the graph's initializers.
    """

    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Adds a node of one output, whose name it takes and returns."""
        self.nodes.append(onnx.helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        """Adds a constant and returns its name."""
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name
