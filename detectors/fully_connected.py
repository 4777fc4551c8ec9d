"""The fully connected autoencoder of Gudi, Büttner and van Gemert, "Proximally Sensitive Error", 2022, section 4.2.

Stated there: an input layer, a fully connected hidden layer with ReLU as the bottleneck and a fully connected output
layer with a sigmoid; as many inputs and outputs as pixels (84 x 84 for MNISTX, 96 x 96 for STL-10); the size of the
bottleneck is what the experiments vary. Filled in here: biases in both layers, torch's default initialisation, and
colour images as pixels of each channel.
"""

from collections import OrderedDict

from torch import nn

from flawline.detectors.autoencoder import Autoencoder, ImageShape


def fully_connected_autoencoder(image_shape: ImageShape, bottleneck: int) -> Autoencoder:
    """One hidden layer between the pixels and the pixels. Its state dict holds `encoder.hidden.*` and `decoder.output.*`.

    Args:
        image_shape: Any.
        bottleneck: Dimension of the hidden layer.
    """
    encoder = nn.Sequential(
        OrderedDict(pixels=nn.Flatten(), hidden=nn.Linear(image_shape.values, bottleneck), activation=nn.ReLU())
    )
    decoder = nn.Sequential(
        OrderedDict(
            output=nn.Linear(bottleneck, image_shape.values),
            activation=nn.Sigmoid(),
            image=nn.Unflatten(1, tuple(image_shape)),
        )
    )
    return Autoencoder("fully-connected", image_shape, bottleneck, encoder, decoder)
