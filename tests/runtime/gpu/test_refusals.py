"""What a command says of a GPU that will not do: one line and exit status 2."""

import re
from pathlib import Path

import pytest

from flawline.__main__ import main
from flawline.export.fit import FitOptions, fit_bundle
from flawline.runtime.images import list_images
from tests.emulation.standin import StandIn

OPTIONS = ["--backend", "tensorrt"]


@pytest.fixture
def images(good_images: Path) -> list[str]:
    return [str(path) for path in list_images(good_images)[:4]]


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"devices": 0}, "the NVIDIA driver finds no GPU that works: cuInit: no CUDA-capable device is detected"),
        (
            {"driver_version": 11020},
            r"the NVIDIA driver supports CUDA 11\.2; expected 11\.4 or newer: update the driver",
        ),
        (
            {"driver_version": 12060, "image_version": 13000},
            r"the driver, which supports CUDA 12\.6, refuses the kernels for stand-in for a GPU \(.*\); update the driver, or "
            r"install NVRTC of its release .*",
        ),
        (
            {"memory_bytes": 40_000},
            r"Gaussians of 10 dimensions and a batch of 1 need [0-9,]+ bytes of GPU memory, and 40,000 bytes are free on "
            r"stand-in for a GPU; .*",
        ),
        ({"fail": "cuMemAlloc@3=2+"}, r".* MB of GPU memory cannot be had, .*; close what else uses the GPU, or .*"),
    ],
    ids=["no GPU", "a driver that is too old", "a driver older than the kernels", "too little memory", "no memory"],
)
@pytest.mark.parametrize("command", ["score", "verify", "stream"])
def test_a_gpu_that_will_not_do_is_refused_in_a_line(
    command: str,
    machine: dict[str, object],
    words: str,
    tiny_bundle: Path,
    good_images: Path,
    images: list[str],
    gpu: StandIn,
    capsys: pytest.CaptureFixture[str],
) -> None:
    of_command = {"score": images, "verify": [], "stream": ["--source", f"replay:{good_images}"]}
    gpu.reset(**machine)
    assert main([command, str(tiny_bundle), *of_command[command], *OPTIONS]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"flawline {command}: {words}\n", err), err


def test_the_dimension_that_is_said_to_fit_does(
    tiny_bundle: Path,
    tiny_network: Path,
    good_images: Path,
    images: list[str],
    gpu: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpu.reset(memory_bytes=1)
    assert main(["score", str(tiny_bundle), *images, *OPTIONS]) == 2
    (needed,) = re.findall(r"need ([0-9,]+) bytes of GPU memory", capsys.readouterr().err)
    gpu.reset(memory_bytes=int(0.8 * int(needed.replace(",", ""))))
    assert main(["score", str(tiny_bundle), *images, *OPTIONS]) == 2
    assert gpu.calls("cuMemAlloc") == 0
    (dimension,) = (int(digits) for digits in re.findall(r"fit with --dim (\d+) or less", capsys.readouterr().err))
    options = FitOptions(
        backbone=str(tiny_network),
        layers=("fine", "coarse"),
        image_size=64,
        dimension=dimension,
        threads=1,
        smoothing_px=4.0,
    )
    fit_bundle(list_images(good_images), tmp_path / "smaller.flaw", options)
    assert main(["score", str(tmp_path / "smaller.flaw"), *images, *OPTIONS]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(images)


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("cuGraphLaunch@2=701", "the detector is closed: open the bundle again"),
        ("cuGraphLaunch@2=700", "it is lost to this process: end the process and start it again"),
        ("kernel@{kernels}=719", "it is lost to this process: end the process and start it again"),
    ],
    ids=["refused", "lost at the launch", "lost in a kernel"],
)
def test_a_launch_that_fails_ends_the_images_that_follow(
    fault: str, advice: str, tiny_bundle: Path, images: list[str], gpu: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(tiny_bundle), *images, *OPTIONS]) == 0
    kernels = gpu.calls("kernel")
    capsys.readouterr()
    gpu.reset(fail=fault.format(kernels=kernels))
    assert main(["score", str(tiny_bundle), *images, *OPTIONS]) == 2
    out, err = capsys.readouterr()
    scored = len(out.splitlines())
    assert 0 < scored < len(images)
    assert re.fullmatch(f"flawline score: {images[scored]}: the GPU failed on a frame: .*; {advice}\n", err), err
    gpu.restart()
