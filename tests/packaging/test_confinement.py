"""No command opens a network socket or writes outside the folders it was given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flawline.runtime.images import list_images


@pytest.fixture(scope="module")
def spy(tmp_path_factory):
    library = tmp_path_factory.mktemp("spy") / "spy.so"
    source = Path(__file__).with_name("spy.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def observe(spy: Path, home: Path, words: list[str]) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    home.mkdir()
    log = home.parent / "spy.log"
    log.touch()
    environment = os.environ | {
        "LD_PRELOAD": str(spy),
        "SPY_LOG": str(log),
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_CACHE_HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    result = subprocess.run(
        [sys.executable, "-m", "flawline", *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
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


COMMANDS = {
    "fit": "fit {good} --out {out}/made.flaw --backbone {network} --layers fine,coarse --image-size 64 --dim 8",
    "fit-named": "fit {good} --out {out}/made.flaw --weights random --image-size 64 --dim 8 --false-reject-rate 0.2",
    "score": "score {bundle} {image} --json --heatmaps {out}/heat",
    "info": "info {bundle} --json",
    "verify": "verify {bundle}",
    "stream": "stream {bundle} --source replay:{good} --json --thumbnails {out}/thumbnails",
    "evaluate": "evaluate {bundle} {dataset}",
    "bench-latency": "bench latency {bundle} --images {good} --frames 20 --json {out}/latency.json",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_stays_offline_and_inside_its_folders(
    name, spy, tmp_path, good_images, tiny_network, tiny_bundle, tiny_dataset
):
    out = tmp_path / "out"
    out.mkdir()
    words = COMMANDS[name].format(
        good=good_images,
        out=out,
        network=tiny_network,
        bundle=tiny_bundle,
        image=list_images(good_images)[0],
        dataset=tiny_dataset,
    )
    result, lines = observe(spy, tmp_path / "home", words.split())
    assert result.returncode == 0, result.stderr
    assert [line for line in lines if line.startswith("socket")] == []
    # A library may use the temporary folder, if it leaves nothing there.
    assert list((tmp_path / "home").iterdir()) == []
    strays = {
        path
        for line in lines
        if line.startswith("write ")
        and not (path := line.removeprefix("write ")).startswith((str(out), str(tmp_path / "home"), "/dev/", "/proc/"))
    }
    assert strays == set()
