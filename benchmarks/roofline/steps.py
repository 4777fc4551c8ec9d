"""The steps of a frame that floors are told of, and what JL at 150 dimensions saves of selection at 550."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flawline.benchmarks.roofline.devices import Device
from flawline.benchmarks.roofline.network import NETWORKS, channels, network
from flawline.benchmarks.roofline.work import FACTORS, Work, factor_bytes, mahalanobis, proximal_error

JL, SELECTION = 150, 550
"""Dimensions of the headline case: Zhang, Zhang, Dong (2021), section 5."""

HEADLINE_NETWORK = "wide-resnet50-2"
PRECISIONS = ("fp16", "int8")
FRAME_PX = 1024
SIGMA_PX = 4.0


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        group: "step" (Mahalanobis), "network" or "pse".
        name: What it is, its dimension included.
        dimension: d; None where there is none.
        batch: Frames at once.
        work: Bytes and operations of the batch.
    """

    group: str
    name: str
    dimension: int | None
    batch: int
    work: Work


@dataclass(frozen=True)
class Ratio:
    """How many times more selection takes than JL.

    Attributes:
        name: The forms that are compared.
        bytes: Of the factors.
        step: Of the step's floor.
        frame: Of the floors of network and step together.
    """

    name: str
    bytes: float
    step: float
    frame: float


def steps(dimensions: Sequence[int], batches: Sequence[int]) -> Iterator[Step]:
    """All steps, batch by batch. A network has no step where it has fewer channels than a dimension.

    Args:
        dimensions: d.
        batches: Frames at once.
    """
    for batch in batches:
        for form in FACTORS:
            for d in dimensions:
                yield Step("step", f"{form}, d {d}", d, batch, mahalanobis(d, form, batch))
        for name in NETWORKS:
            for precision in PRECISIONS:
                for d in dimensions:
                    if d <= channels(name):
                        yield Step(
                            "network", f"{name} {precision}, d {d}", d, batch, network(name, d, precision, batch)
                        )
        work = proximal_error(FRAME_PX, FRAME_PX, SIGMA_PX, batch)
        yield Step("pse", f"{FRAME_PX} x {FRAME_PX}, sigma {SIGMA_PX:g}", None, batch, work)


def ratios(device: Device) -> Iterator[Ratio]:
    """Selection over JL on a device, one frame at a time: in each form, and from the papers' form to ours.

    The network is Wide ResNet-50-2 in fp16.

    Args:
        device: Which one.
    """
    pairs = [(form, form) for form in FACTORS] + [("fp32 inverse", "fp16 triangle")]
    for selected, projected in pairs:
        times = {}
        for d, form in ((SELECTION, selected), (JL, projected)):
            step = mahalanobis(d, form, 1).floor_s(device)
            before = network(HEADLINE_NETWORK, d, "fp16", 1).floor_s(device)
            times[d] = step, before + step
        name = selected if selected == projected else f"{selected} to {projected}"
        yield Ratio(
            name,
            factor_bytes(SELECTION, selected) / factor_bytes(JL, projected),
            times[SELECTION][0] / times[JL][0],
            times[SELECTION][1] / times[JL][1],
        )
