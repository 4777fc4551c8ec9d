"""Their side of the comparison: each peer installed, fitted and exported in an environment of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flawline.benchmarks.environment import Environment
from flawline.benchmarks.peers import environments
from flawline.benchmarks.peers.cases import Case, Failure, read_offers
from flawline.benchmarks.peers.environments import PEERS, PeerError
from flawline.benchmarks.peers.frames import Frames
from flawline.runtime.errors import InputError

BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})


@dataclass(frozen=True)
class About:
    """What is to be told of a peer.

    Attributes:
        licence: SPDX expression.
        versions: Of its libraries, by name.
        notes: What had to be done to run it.
    """

    licence: str
    versions: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class Theirs:
    """What the peers enter.

    Attributes:
        cases: Every way that they offer to run their models.
        failures: Peers and cases that are missing, and why.
        about: Of each peer that was fitted, by name.
    """

    cases: list[Case]
    failures: list[Failure]
    about: dict[str, About]


def install(
    names: Sequence[str],
    folder: Path,
    *,
    index_options: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Path], list[Failure]]:
    """Makes or finds the environments of peers.

    Args:
        names: Of `PEERS`.
        folder: Where environments are kept.
        index_options: Words for pip, as `--extra-index-url URL`.
        say: Takes each line that tells what is being done.

    Returns:
        Interpreters by name, and the peers that could not be had.

    Raises:
        InputError: None could be had.
    """
    installed: dict[str, Path] = {}
    failures: list[Failure] = []
    for name in names:
        try:
            installed[name] = environments.provide(PEERS[name], folder, index_options=index_options, say=say)
        except PeerError as error:
            failures.append(Failure(name, str(error)))
    if not installed:
        raise InputError(
            f"no peer could be installed: {failures[0].reason}; expected a package index within reach, "
            "or environments made before in --environments"
        )
    return installed, failures


def fit_theirs(
    installed: dict[str, Path],
    frames: Frames,
    folder: Path,
    *,
    weights: Path,
    dimension: int,
    threads: int,
    environment: Environment,
    say: Callable[[str], None] = lambda line: None,
) -> Theirs:
    """Fits and exports every peer that is installed.

    Args:
        installed: Interpreters by name; see `install`.
        frames: To fit on; the labelled ones are there for a peer that sets its threshold on them.
        folder: For models and logs.
        weights: File with the weights of ResNet-18.
        dimension: Channels that a peer keeps.
        threads: Threads of every pool.
        environment: The machine, which may not compute in every precision.
        say: Takes each line that tells what is being done.
    """
    task: dict[str, object] = {
        "weights": str(weights.resolve()),
        "dimension": dimension,
        "height": frames.height,
        "width": frames.width,
        "fit": str(frames.fit),
        "good": None if frames.good is None else str(frames.good),
        "defective": None if frames.defective is None else str(frames.defective),
    }
    cases: list[Case] = []
    failures: list[Failure] = []
    about: dict[str, About] = {}
    for name, python in installed.items():
        say(f"{name}: fitting and exporting")
        try:
            offers = environments.fit(PEERS[name], python, task, folder / name, threads=threads)
        except PeerError as error:
            failures.append(Failure(name, str(error)))
            continue
        command = environments.worker_command(python, f"{name}_score")
        offered, refused, versions, notes = read_offers(
            offers, name, command, environments.worker_environment(folder / name)
        )
        missing = [case for case in offered if not _runs_here(case, environment)]
        failures += [*refused, *(Failure(case.name, "this processor has no bf16") for case in missing)]
        cases += [case for case in offered if case not in missing]
        about[name] = About(PEERS[name].licence, versions, notes)
    return Theirs(cases, failures, about)


def _runs_here(case: Case, environment: Environment) -> bool:
    return "bf16" not in case.precision or not BF16_FLAGS.isdisjoint(environment.cpu_flags)
