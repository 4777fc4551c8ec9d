"""Makes more of a bundle: a further precision of its network, a TensorRT engine, or one ONNX file for other runtimes.

--precision P --images GOOD_DIR writes a new bundle that also holds the network in P, with statistics, threshold and golden
frames of its own. GOOD_DIR is the folder that the bundle was fitted on (of a classifier, the images of its classes, as for `flawline
fit`): the images are split as they were. What is written scores like the float detector, or nothing is written (exit 1).

--to engine builds the network for TensorRT on the GPU of this machine, for up to --batch frames at once. Without --out it goes
into the cache, where `--backend tensorrt` finds it, which builds what it does not find.

--to standalone writes a single ONNX file, uint8 frame in, score, map and verdict out, for people with a runtime of their
own; with --precision, of a network that the bundle holds. It must score like the bundle on its golden frames, and on those of
--images.

  flawline export part.flaw --precision int8 --images good/ --out part-int8.flaw
  flawline export part.flaw --to engine --precision fp16
  flawline export part.flaw --to standalone --out part.onnx
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from flawline.calibration.statistics import FactorType
from flawline.calibration.woodbury import Form
from flawline.export.options import default_threads
from flawline.runtime.commands.options import add_map
from flawline.runtime.precisions import PRECISIONS

if TYPE_CHECKING:
    from flawline.runtime.bundle import Bundle

# Options, by name, that say nothing to what --to asks for.
_NEEDLESS = {
    None: ("batch", "workspace_mb", "dla", "map"),
    "engine": ("images", "flat_field", "factors", "form", "labelled", "skip_bad"),
    "standalone": ("flat_field", "factors", "form", "labelled", "skip_bad", "batch", "workspace_mb", "dla", "map"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle; stays as it is")
    parser.add_argument(
        "--to",
        choices=("engine", "standalone"),
        help="a file for another runtime, instead of a bundle of more precisions",
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="to add; with --to, the one to take")
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="good images (or web) that the bundle was fitted on; with --to, more to compare on",
    )
    parser.add_argument(
        "--flat-field", metavar="FILE", type=Path, help="the one that a bundle for a web was fitted with, if any"
    )
    parser.add_argument(
        "--labelled",
        metavar="DIR",
        type=Path,
        help="also compare AUROC on this folder (MVTec layout: test/good, test/KIND)",
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        type=Path,
        help="bundle to make, or file to make or replace, which for standalone must be an ONNX file; an engine may do without",
    )
    parser.add_argument("--factors", choices=get_args(FactorType), help="of what is added (default: as in the bundle)")
    parser.add_argument(
        "--form",
        choices=get_args(Form),
        help="of the factors that are added (default: as in the bundle; with other --factors, what suits them)",
    )
    parser.add_argument("--batch", metavar="B", type=int, help="most frames that the engine takes at once (default: 1)")
    parser.add_argument(
        "--workspace-mb",
        metavar="N",
        type=int,
        help="scratch memory of the engine's layers (default: what the GPU has)",
    )
    parser.add_argument(
        "--dla", metavar="N", type=int, help="deep learning accelerator to run what it can of the network"
    )
    add_map(parser)
    parser.add_argument("--skip-bad", action="store_true", help="go on without images that cannot be read")
    parser.add_argument("--threads", metavar="N", type=int, default=default_threads(), help="default: all cores")
    parser.add_argument("--json", action="store_true", help="print what the gate found as JSON")


def run(options: argparse.Namespace) -> int:
    """Exports and prints what came of it."""
    from flawline.export.parity import ParityError
    from flawline.runtime.errors import InputError

    what = "--precision alone" if options.to is None else f"--to {options.to}"
    for name in _NEEDLESS[options.to]:
        # Not by its truth: 0 is an accelerator.
        if getattr(options, name) is not None and getattr(options, name) is not False:
            raise InputError(f"--{name.replace('_', '-')} does not go with {what}")
    try:
        if options.to == "engine":
            return _engine(options)
        return _standalone(options) if options.to == "standalone" else _add(options)
    except ParityError as error:
        sys.stderr.write(f"flawline export: {error}\n")
        return 1


def _add(options: argparse.Namespace) -> int:
    from flawline.calibration.web_flat_field import read_flat_field, require_same_flat_field
    from flawline.calibration.web_pieces import read_pieces
    from flawline.export.addition import add_precision
    from flawline.export.labelled import read_labelled
    from flawline.runtime.bundle import ClassifierManifest, read
    from flawline.runtime.errors import InputError
    from flawline.runtime.images import list_images

    if options.precision is None:
        raise InputError("received neither --to nor --precision; expected one of them (see --help)")
    if options.images is None:
        raise InputError(
            f"--precision {options.precision} needs --images, the good images that the bundle was fitted on"
        )
    if options.out is None:
        raise InputError(f"--precision {options.precision} needs --out, the bundle to make")
    opened = read(options.bundle)
    if isinstance(opened.manifest, ClassifierManifest):
        return _added(_add_to_classifier(opened, options), options)
    web = opened.padim.web
    if web is not None:
        flat_field = read_flat_field(options.flat_field)
        require_same_flat_field(web, flat_field, options.bundle)
    elif options.flat_field is not None:
        raise InputError(f"--flat-field is for webs; {options.bundle} is for pictures")
    images = list_images(Path(options.images)) if web is None else read_pieces(options.images, flat_field, _say)
    bundle = add_precision(
        options.bundle,
        options.precision,
        images,
        options.out,
        factors=options.factors,
        form=options.form,
        labelled=None if options.labelled is None else read_labelled(options.labelled),
        skip_bad=options.skip_bad,
        threads=options.threads,
        say=_say,
    )
    return _added(bundle, options)


def _add_to_classifier(bundle: "Bundle", options: argparse.Namespace) -> "Bundle":
    from flawline.export.classifier_addition import add_classifier_precision
    from flawline.runtime.errors import InputError

    for name in ("flat_field", "form", "labelled", "skip_bad"):
        if getattr(options, name):
            raise InputError(f"--{name.replace('_', '-')} does not go with the bundle of a classifier")
    return add_classifier_precision(
        bundle,
        options.precision,
        Path(options.images),
        options.out,
        factors=options.factors,
        threads=options.threads,
        say=_say,
    )


def _added(bundle: "Bundle", options: argparse.Namespace) -> int:
    added = bundle.select(options.precision).manifest
    text = (
        f"{bundle.path}: {', '.join(bundle.precisions)}, {bundle.total_bytes / 1e6:.1f} MB, bundle {bundle.hash[:12]}; "
        f"--precision {options.precision} runs what was added\n"
    )
    sys.stdout.write(_json(added.fidelity) if options.json else text)
    return 0


def _standalone(options: argparse.Namespace) -> int:
    from flawline.export.standalone import write_standalone
    from flawline.runtime.bundle import read
    from flawline.runtime.errors import InputError
    from flawline.runtime.images import list_images, read_image

    if options.out is None:
        raise InputError("--to standalone needs --out, the file to make or replace")
    frames = (read_image(path) for path in (list_images(Path(options.images)) if options.images else ()))
    bundle = read(options.bundle).select(options.precision)
    report = write_standalone(bundle, options.out, frames, threads=options.threads)
    text = f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, {bundle.manifest.network.precision}; {_text(report)}\n"
    sys.stdout.write(_json(report) if options.json else text)
    return 0


def _engine(options: argparse.Namespace) -> int:
    from flawline.export.engine import write_engine_file
    from flawline.runtime.bundle import read
    from flawline.runtime.gpu.engine_cache import EngineOptions

    bundle = read(options.bundle).select(options.precision).with_map(options.map)
    path = write_engine_file(
        bundle,
        options.out,
        batch=1 if options.batch is None else options.batch,
        options=EngineOptions(workspace_mb=options.workspace_mb, dla_core=options.dla),
        say=_say,
    )
    precision, size = bundle.manifest.network.precision, path.stat().st_size
    facts = {"engine": str(path), "precision": precision, "bytes": size}
    sys.stdout.write(_json(facts) if options.json else f"{path}: {size / 1e6:.1f} MB, {precision}\n")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _json(report: object) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def _text(report: dict[str, str | float]) -> str:
    from flawline.runtime.commands.info import figure

    return ", ".join(
        f"{name.replace('_', ' ')} {value}" if isinstance(value, str) else figure(name, value)
        for name, value in report.items()
    )
