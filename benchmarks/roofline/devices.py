"""What data sheets say of devices. Rates are dense ones, at the highest clock of the power mode."""

from dataclasses import dataclass

_ORIN_SHEETS = "data sheets of the Jetson Orin Nano, Orin NX and AGX Orin series; Jetson AGX Orin Technical Brief 1.2"
_SUPER_SHEETS = "data sheets of the Jetson Orin Nano and Orin NX series with the power modes of JetPack 6.2"


@dataclass(frozen=True)
class Device:
    """A GPU and its memory.

    Attributes:
        name: On the command line.
        title: The product.
        mode: Power mode.
        memory_bytes: Of the module or the card; on a Jetson the host lives there too.
        bytes_per_second: Of that memory.
        fp32_per_second: Operations, a multiply-add counted as two, of the CUDA cores.
        fp16_per_second: Of the tensor cores.
        int8_per_second: Of the tensor cores.
        source: Whose numbers these are.
    """

    name: str
    title: str
    mode: str
    memory_bytes: float
    bytes_per_second: float
    fp32_per_second: float
    fp16_per_second: float
    int8_per_second: float
    source: str

    def rate(self, kind: str) -> float:
        """Operations per second of a kind: "fp32", "fp16" or "int8"."""
        rate: float = getattr(self, f"{kind}_per_second")
        return rate


def _orin(
    name: str,
    title: str,
    mode: str,
    *,
    gigabytes: int,
    bandwidth_gb_per_s: float,
    multiprocessors: int,
    clock_mhz: int,
    source: str,
) -> Device:
    """One of the Orin family. 128 CUDA cores and 4,096 dense int8 operations per clock and multiprocessor.

    The technical brief gives 170 tera-operations of sparse int8 to the 16 multiprocessors of AGX Orin at 1.3 GHz: 85
    dense. fp16 takes half the rate. The totals on the front of the data sheets count the DLAs as well.
    """
    cycles = multiprocessors * clock_mhz * 1e6
    return Device(
        name,
        title,
        mode,
        memory_bytes=gigabytes * 1e9,
        bytes_per_second=bandwidth_gb_per_s * 1e9,
        fp32_per_second=2 * 128 * cycles,
        fp16_per_second=2048 * cycles,
        int8_per_second=4096 * cycles,
        source=source,
    )


DEVICES = {
    device.name: device
    for device in (
        _orin(
            "orin-nano",
            "Jetson Orin Nano 8 GB",
            "15 W",
            gigabytes=8,
            bandwidth_gb_per_s=68,
            multiprocessors=8,
            clock_mhz=625,
            source=_ORIN_SHEETS,
        ),
        _orin(
            "orin-nano-super",
            "Jetson Orin Nano 8 GB",
            "MAXN SUPER",
            gigabytes=8,
            bandwidth_gb_per_s=102,
            multiprocessors=8,
            clock_mhz=1020,
            source=_SUPER_SHEETS,
        ),
        _orin(
            "orin-nx",
            "Jetson Orin NX 16 GB",
            "MAXN, 25 W",
            gigabytes=16,
            bandwidth_gb_per_s=102.4,
            multiprocessors=8,
            clock_mhz=918,
            source=_ORIN_SHEETS,
        ),
        _orin(
            "agx-orin",
            "Jetson AGX Orin 64 GB",
            "MAXN, 60 W",
            gigabytes=64,
            bandwidth_gb_per_s=204.8,
            multiprocessors=16,
            clock_mhz=1300,
            source=_ORIN_SHEETS,
        ),
        Device(
            "thor",
            "Jetson T5000 (AGX Thor)",
            "MAXN, 130 W",
            memory_bytes=128e9,
            bytes_per_second=273e9,
            # 2,560 CUDA cores at 1.57 GHz. Sparse: 2,070 tera-operations of fp4, 1,035 of int8 and of fp8, 517 of fp16.
            fp32_per_second=2 * 2560 * 1.57e9,
            fp16_per_second=517e12 / 2,
            int8_per_second=1035e12 / 2,
            source="data sheet of the Jetson Thor series modules",
        ),
        Device(
            "h200",
            "H200 SXM",
            "700 W",
            memory_bytes=141e9,
            bytes_per_second=4.8e12,
            # Half of the sparse rates.
            fp32_per_second=67e12,
            fp16_per_second=1979e12 / 2,
            int8_per_second=3958e12 / 2,
            source="NVIDIA H200 Tensor Core GPU data sheet",
        ),
    )
}
