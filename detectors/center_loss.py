"""The center loss (Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016)."""

import torch
from torch import Tensor, nn

from flawline.runtime.errors import InputError


class CenterLoss(nn.Module):
    """Half the mean squared distance of deep features from the center of their class (equation 2).

    The mean over the batch stands where the paper has the sum, as in cross-entropy. The gradient is that of the features
    (equation 3); the centers follow by a rule of their own (equation 4), which is no descent of this loss: see `update`.
    They begin at 0 and are part of the state dict.

    Args:
        classes: How many there are, K.
        dimension: Values in the deep features, d.
        rate: Alpha of equation 4, above 0 up to 1.

    Attributes:
        centers: float32 (K, d).

    Raises:
        InputError: A rate that is out of its range.
    """

    centers: Tensor

    def __init__(self, classes: int, dimension: int, *, rate: float = 0.5) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise InputError(f"rate of the centers {rate}: expected above 0, up to 1")
        self.rate = rate
        self.register_buffer("centers", torch.zeros(classes, dimension))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of deep features (B, d) of classes int64 (B,). The centers are left as they are."""
        return 0.5 * (features - self.centers[labels]).square().sum(1).mean()

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Moves the center of each class towards the features of a batch (equation 4).

        A class with n images in the batch moves by `rate` times the sum of their differences from its center over 1 + n;
        a class with none stays.

        Args:
            features: (B, d).
            labels: int64 (B,).
        """
        differences = features.to(self.centers) - self.centers[labels]
        total = torch.zeros_like(self.centers).index_add_(0, labels, differences)
        count = torch.bincount(labels, minlength=len(self.centers))
        self.centers += self.rate * total / (1 + count)[:, None]
