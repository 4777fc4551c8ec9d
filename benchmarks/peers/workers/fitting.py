"""What the fits of both peers share: each way to run the model is tried on its own. Imports no flawline."""

import importlib.metadata
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Task = Mapping[str, Any]


class Offers:
    """The ways to run one peer's model, with those that could not be made, and why."""

    def __init__(self) -> None:
        self._cases: list[dict[str, Any]] = []
        self._failures: list[dict[str, str]] = []

    def add(self, names: Sequence[tuple[str, str]], make: Callable[[], Sequence[Path]]) -> None:
        """Makes an artefact and offers it.

        Args:
            names: Engine and precision of each case that runs the artefact.
            make: Makes it and gives the files that are deployed, the one to open first.
        """
        try:
            files = [str(path) for path in make()]
            if not files or not all(Path(file).is_file() for file in files):
                raise FileNotFoundError(f"the export said nothing and left no {files[:1] or 'file'}")
        except Exception as error:  # noqa: BLE001 - another project's code: whatever it raises is the reason to report
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self._failures += [{"engine": engine, "precision": how, "reason": reason} for engine, how in names]
        else:
            self._cases += [{"engine": engine, "precision": how, "files": files} for engine, how in names]

    def write(self, out: Path, packages: Sequence[str], notes: Sequence[str]) -> None:
        """Writes `cases.json`."""
        versions = {}
        for name in packages:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        offered = {"cases": self._cases, "failures": self._failures, "versions": versions, "notes": list(notes)}
        (out / "cases.json").write_text(json.dumps(offered, indent=2), encoding="utf-8")


def read_task() -> dict[str, Any]:
    """The task that the parent wrote to standard input."""
    return dict(json.load(sys.stdin))


def openvino_precisions(prefix: str = "") -> list[tuple[str, str]]:
    """Names of the precisions that OpenVINO's CPU plugin computes float layers in."""
    return [("openvino", f"{prefix}{hint}") for hint in ("f32", "bf16")]
