"""The tables of `flawline bench roofline`."""

from collections.abc import Iterator, Sequence

from flawline.benchmarks.roofline.devices import Device
from flawline.benchmarks.roofline.network import SIDE_PX
from flawline.benchmarks.roofline.steps import HEADLINE_NETWORK, JL, SELECTION, Ratio, Step
from flawline.benchmarks.roofline.work import MAP
from flawline.benchmarks.tables import table

_HEADS = {
    "step": f"Mahalanobis step, {MAP[0]} x {MAP[1]} positions, a Gaussian to each",
    "network": f"Network, {SIDE_PX} x {SIDE_PX} px, layers 1 to 3, projection folded in",
    "pse": "Proximally Sensitive Error",
}


def told(devices: Sequence[Device], found: Sequence[Step], ratios: Sequence[Sequence[Ratio]]) -> Iterator[str]:
    """Everything, line by line or table by table.

    Args:
        devices: Which ones.
        found: The steps.
        ratios: Of each device.
    """
    yield "Computed from data sheets, not measured."
    yield "Floor: bytes over bandwidth, or operations over rate where that is longer (marked *)."
    yield ""
    yield table(("device", "product", "power mode", "GB", "GB/s", "fp32", "fp16", "int8"), [*map(_device, devices)])
    yield ""
    yield "fp32, fp16, int8: 10^12 operations per second, dense; a multiply-add is two. Sources:"
    for source in dict.fromkeys(device.source for device in devices):
        names = ", ".join(device.name for device in devices if device.source == source)
        yield f"  {names}: {source}"
    for batch in dict.fromkeys(step.batch for step in found):
        for group, head in _HEADS.items():
            rows = [step for step in found if (step.group, step.batch) == (group, batch)]
            if rows:
                yield ""
                yield f"{head}; batch {batch}; floor of the batch in ms"
                yield table(
                    ("", "MB", "Gop", *(device.name for device in devices)), [_step(step, devices) for step in rows]
                )
    yield ""
    yield (
        f"Selection at {SELECTION} dimensions over JL at {JL}, batch 1; "
        f"frame: {HEADLINE_NETWORK} fp16 and step, a floor each"
    )
    rows_of = zip(*ratios, strict=True)
    yield table(
        ("times more", "bytes", *(f"{device.name}: step, frame" for device in devices)),
        [(row[0].name, f"{row[0].bytes:.1f}", *(f"{one.step:.1f}, {one.frame:.1f}" for one in row)) for row in rows_of],
    )


def _device(device: Device) -> tuple[str, ...]:
    rates = (device.fp32_per_second, device.fp16_per_second, device.int8_per_second)
    return (
        device.name,
        device.title,
        device.mode,
        f"{device.memory_bytes / 1e9:.0f}",
        f"{device.bytes_per_second / 1e9:.1f}",
        *(f"{rate / 1e12:.1f}" for rate in rates),
    )


def _step(step: Step, devices: Sequence[Device]) -> tuple[str, ...]:
    floors = [(step.work.floor_s(device), step.work.bound(device)) for device in devices]
    return (
        step.name,
        f"{step.work.bytes / 1e6:.1f}",
        f"{step.work.operations / 1e9:.2f}",
        *(f"{1e3 * s:.4f}" + ("*" if bound == "operations" else " ") for s, bound in floors),
    )
