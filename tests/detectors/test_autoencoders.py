"""The autoencoders: what the papers state of them, seeds, stable names, folding and the encoder's reuse."""

import pytest
import torch
from torch import nn

from flawline.detectors.autoencoder import fold_batch_norm
from flawline.detectors.autoencoders import AUTOENCODERS, build_autoencoder
from flawline.detectors.encoder_classifier import EncoderClassifier
from flawline.runtime.errors import InputError

NAMES = pytest.mark.parametrize("name", AUTOENCODERS)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@NAMES
@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (84, 96, 1), (32, 4, 3)])
def test_reconstruction_has_the_shape_of_the_image(name: str, height: int, width: int, channels: int) -> None:
    network = build_autoencoder(name, height, width, channels=channels, bottleneck=7)
    image = torch.rand(2, channels, height, width)
    assert network(image).shape == image.shape
    assert network.encoder(image).shape == (2, 7)


def test_fully_connected_network_is_that_of_the_paper() -> None:
    """Two affine layers with ReLU between and a sigmoid behind, computed by hand."""
    network = build_autoencoder("fully-connected", 84, 84, bottleneck=50)
    state = network.state_dict()
    assert list(state) == [
        "encoder.hidden.weight",
        "encoder.hidden.bias",
        "decoder.output.weight",
        "decoder.output.bias",
    ]
    assert parameters(network) == 2 * 84 * 84 * 50 + 50 + 84 * 84
    image = torch.rand(3, 1, 84, 84)
    code = (image.reshape(3, -1) @ state["encoder.hidden.weight"].T + state["encoder.hidden.bias"]).clamp(min=0)
    expected = torch.sigmoid(code @ state["decoder.output.weight"].T + state["decoder.output.bias"])
    torch.testing.assert_close(network(image), expected.reshape(3, 1, 84, 84))


def test_convolutional_network_has_the_layers_of_the_published_one() -> None:
    network = build_autoencoder("convolutional", 28, 28)
    halving = sum(9 * c * d + 9 * d * d + c * d + 6 * d for c, d in ((1, 32), (32, 64)))
    doubling = sum(25 * c * d + 9 * d * d + c * d + 6 * d for c, d in ((64, 32), (32, 16)))
    values = 64 * 7 * 7
    dense = (values + 1) * 64 + 2 * 64 + 65 * 64 + 65 * 64 + 2 * 64 + 65 * values + 2 * values
    assert parameters(network) == halving + dense + doubling + 16
    maps = [network.encoder[:1], network.encoder[:2]]
    image = torch.rand(2, 1, 28, 28)
    assert [tuple(part(image).shape[1:]) for part in maps] == [(32, 14, 14), (64, 7, 7)]
    code = network.encoder(image)
    assert ((code > 0) & (code < 1)).all()


def test_names_of_the_convolutional_parameters_are_stable() -> None:
    names = [name for name, _ in build_autoencoder("convolutional", 28, 28).named_parameters()]
    block = [
        "convolutions.first.weight",
        *("convolutions.first_norm.weight", "convolutions.first_norm.bias"),
        "convolutions.second.weight",
        *("convolutions.second_norm.weight", "convolutions.second_norm.bias"),
        "shortcut.projection.weight",
        *("shortcut.norm.weight", "shortcut.norm.bias"),
    ]
    dense = {
        "encoder": ["hidden", "hidden_norm", "code"],
        "decoder": ["hidden", "hidden_norm", "expand", "expand_norm"],
    }
    expected = [f"encoder.down_{i}.{name}" for i in (1, 2) for name in block]
    expected += [f"{half}.{layer}.{kind}" for half in dense for layer in dense[half] for kind in ("weight", "bias")]
    expected += [f"decoder.up_{i}.{name}" for i in (1, 2) for name in block]
    assert names == [*expected, "decoder.output.weight"]


@NAMES
def test_same_seed_gives_the_same_weights_and_leaves_the_global_generator(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (build_autoencoder(name, 28, 28, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@NAMES
def test_folded_network_computes_what_the_trained_one_does(name: str) -> None:
    network = build_autoencoder(name, 28, 28)
    with torch.no_grad():
        for _ in range(3):  # statistics other than the initial ones
            network(torch.rand(16, 1, 28, 28))
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
    image = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(folded(image), network.eval()(image), rtol=1e-4, atol=1e-5)
    assert network.encoder[1] is not folded.encoder[1]


@NAMES
def test_encoder_is_reused_as_a_copy_below_a_classification_layer(name: str) -> None:
    autoencoder = build_autoencoder(name, 28, 28, bottleneck=20)
    classifier = EncoderClassifier(autoencoder, 10, seed=1).eval()
    image = torch.rand(2, 1, 28, 28)
    logits = classifier(image)
    assert logits.shape == (2, 10)
    layer = classifier.classification
    code = autoencoder.eval().encoder(image)
    torch.testing.assert_close(logits, code @ layer.weight.T + layer.bias)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.zero_()
    torch.testing.assert_close(autoencoder.encoder(image), code)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "lenet"}, "autoencoder lenet: expected one of fully-connected, convolutional"),
        ({"height": 30}, "images of 30 x 28 for convolutional; expected multiples of 4 px"),
        ({"width": 0}, "images of 28 x 0 for convolutional"),
        ({"channels": 4}, "images of 4 channels; expected 1"),
        ({"bottleneck": 0}, "a bottleneck of 0 for images of 784 values; expected 1 to 784"),
        ({"bottleneck": 785}, "a bottleneck of 785"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_autoencoder(**{"name": "convolutional", "height": 28, "width": 28, **changes})  # type: ignore[arg-type]


def test_one_class_is_no_classification() -> None:
    with pytest.raises(InputError, match="expected at least 2"):
        EncoderClassifier(build_autoencoder("fully-connected", 8, 8), 1, seed=0)
