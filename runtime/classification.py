"""What a classifier says of one frame."""

import msgspec
import numpy as np
import numpy.typing as npt


class Classification(msgspec.Struct, frozen=True, eq=False):
    """The class of a frame, and how far it is from each.

    Attributes:
        label: Class of the largest logit.
        probability: Of that class, the softmax of the logits.
        nearest: Class whose Gaussian is nearest, in thresholds of that class.
        distances: float32 (K,), Mahalanobis distance to each class, in their order.
        head: Probability of being normal by the second head; None without one.
    """

    label: str
    probability: float
    nearest: str
    distances: npt.NDArray[np.float32]
    head: float | None
