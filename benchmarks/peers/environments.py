"""The peers, and a virtual environment for each, made from the package index and kept for the next time."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flawline.benchmarks.peers.worker import last_line, process_environment
from flawline.runtime.errors import FlawlineError
from flawline.runtime.files import make_folder

# Each release of torchvision loads with exactly one release of torch.
TORCH = ("torch==2.13.0", "torchvision==0.28.0")
INSTALL_TIMEOUT_S = 3600
FIT_TIMEOUT_S = 3600
_COMPLETE = "complete.json"


@dataclass(frozen=True)
class Peer:
    """A package that offers PaDiM.

    Attributes:
        name: Of the package, and of the modules `workers/NAME_fit.py` and `workers/NAME_score.py`.
        requirements: What pip installs; the peer itself in the release that was measured.
        licence: SPDX expression of the peer.
    """

    name: str
    requirements: tuple[str, ...]
    licence: str


PEERS = {
    peer.name: peer
    for peer in (
        Peer("anomalib", ("anomalib[openvino]==2.7.0", "onnxruntime==1.32.0", *TORCH), "Apache-2.0"),
        Peer("anomavision", ("anomavision==3.6.2", *TORCH), "MIT"),
    )
}


class PeerError(FlawlineError):
    """A peer cannot be installed, or does not fit."""


def default_folder() -> Path:
    """`flawline/peers` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flawline" / "peers"


def provide(
    peer: Peer, folder: Path, *, index_options: Sequence[str] = (), say: Callable[[str], None] = lambda line: None
) -> Path:
    """Makes a peer's environment, or finds the one that was made before.

    Args:
        peer: What to install.
        folder: Where environments are kept.
        index_options: Words for pip, as `--extra-index-url URL`.
        say: Takes each line that tells what is being done.

    Returns:
        The environment's interpreter.

    Raises:
        PeerError: Installing failed; nothing is left behind.
    """
    wanted = {"requirements": list(peer.requirements), "python": platform.python_version()}
    digest = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:12]
    home = (folder / f"{peer.name}-{digest}").absolute()
    python = home / "bin" / "python"
    if (home / _COMPLETE).is_file():
        say(f"{peer.name}: environment found")
        return python
    say(f"{peer.name}: making an environment; this takes minutes and gigabytes")
    make_folder(folder)
    try:
        # Whatever stands there under this name is a try that was interrupted.
        venv.EnvBuilder(with_pip=True, clear=True).create(home)
        _install(peer, home, index_options)
    except (OSError, subprocess.SubprocessError, PeerError) as error:
        shutil.rmtree(home, ignore_errors=True)
        raise PeerError(f"{peer.name} cannot be installed: {error}") from error
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    (home / _COMPLETE).write_text(json.dumps(wanted, indent=2), encoding="utf-8")
    return python


def _install(peer: Peer, home: Path, index_options: Sequence[str]) -> None:
    log = home / "install.log"
    command = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with log.open("wb") as out:
        done = subprocess.run(
            [*command, *index_options, *peer.requirements],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    if done.returncode:
        raise PeerError(last_line(log))


def worker_command(python: Path, module: str) -> tuple[str, ...]:
    """How a peer's interpreter runs one of the scripts in `workers`."""
    return (str(python), "-m", f"workers.{module}")


def worker_environment(folder: Path) -> dict[str, str]:
    """Variables of a peer's process: it finds the scripts, and its caches stay in a folder of the comparison.

    Args:
        folder: Home of the process.
    """
    return {
        "PYTHONPATH": str(Path(__file__).resolve().parent),
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TORCH_HOME": str(folder / "torch"),
    }


def fit(peer: Peer, python: Path, task: dict[str, object], folder: Path, *, threads: int) -> Path:
    """Fits and exports a peer's model in its own interpreter.

    Args:
        peer: Which.
        python: Its interpreter.
        task: What `workers/NAME_fit.py` reads.
        folder: Where it writes.
        threads: Threads of every pool.

    Returns:
        Its `cases.json`.

    Raises:
        PeerError: It failed, or did not end in time.
    """
    make_folder(folder)
    log = folder / "fit.log"
    with log.open("wb") as out:
        try:
            done = subprocess.run(
                worker_command(python, f"{peer.name}_fit"),
                input=json.dumps(task | {"out": str(folder), "threads": threads}).encode(),
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=process_environment(threads) | worker_environment(folder),
                timeout=FIT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PeerError(
                f"{peer.name} still fits and exports after {FIT_TIMEOUT_S:g} s, and said last: {last_line(log)}; "
                "expected it to be done; --fit-images N takes fewer"
            ) from None
    if done.returncode or not (folder / "cases.json").is_file():
        raise PeerError(f"{peer.name} does not fit: {last_line(log)}")
    return folder / "cases.json"
