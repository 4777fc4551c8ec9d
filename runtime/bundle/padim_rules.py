"""The rules between the fields of the manifest of a PaDiM detector."""

from flawline.runtime.bundle.fields import Web
from flawline.runtime.bundle.padim import Gaussian, PadimManifest, Projection


def check(manifest: PadimManifest) -> str | None:
    """The first rule that the whole manifest breaks, as a message; None if it keeps all of them."""
    problem = check_projection(manifest.projection)
    if problem is None and manifest.web is not None:
        return _check_web(manifest, manifest.web)
    return problem


def check_model(manifest: PadimManifest) -> str | None:
    """Likewise of the manifest in one precision."""
    return _check_gaussian(manifest) or check_form(manifest.gaussian, manifest.projection.dimension)


def check_projection(value: Projection) -> str | None:
    """Whether channels are as many as the kind of projection leaves."""
    if value.dimension > value.input_dimension:
        return f"projection from {value.input_dimension} to {value.dimension} channels; expected no more than come in"
    if value.kind == "none" and value.dimension != value.input_dimension:
        return f"projection none from {value.input_dimension} to {value.dimension} channels; expected equal numbers"
    return None


def check_form(gaussian: Gaussian, dimension: int) -> str | None:
    """Whether factors of that many columns have the rows that their form asks for."""
    form, rank = gaussian.form, gaussian.rank
    if (form == "woodbury") != (rank is not None):
        return f"gaussian.rank is {rank} for factors in the form {form}; expected a number for woodbury alone"
    d, block = dimension, gaussian.block_rows
    # As many blocks of rows as a triangle has would save nothing, and could be taken for one.
    if rank is not None and -(-rank // block) >= -(-d // block):
        return f"gaussian.rank is {rank}; expected at least a block of {block} rows less than the dimension {d} takes"
    return None


def _check_web(manifest: PadimManifest, web: Web) -> str | None:
    stride = manifest.network.total_stride
    if web.halo % stride or web.ring % stride or web.ring > web.halo:
        return f"web.halo {web.halo} and web.ring {web.ring}; expected multiples of the total stride {stride}, halo >= ring"
    tile = (manifest.input.height - 2 * web.halo, manifest.input.width - 2 * web.halo)
    if min(tile) < 1 or tile[0] % stride or tile[1] % stride:
        return f"a tile of {tile[0]} x {tile[1]} px; expected multiples of the total stride {stride}"
    if (tile[0] + 2 * web.ring) * manifest.map.width != (tile[1] + 2 * web.ring) * manifest.map.height:
        return f"a map of {manifest.map.height} x {manifest.map.width}; expected the proportions of tile and ring"
    if (tile[0] + 2 * web.ring) % manifest.map.height or stride % ((tile[0] + 2 * web.ring) // manifest.map.height):
        return f"a map of {manifest.map.height} rows; expected a stride that divides {stride}"
    if stride % web.binning:
        return f"web.binning is {web.binning}; expected a divisor of the total stride {stride}"
    if any(manifest.select(precision).gaussian.tie == "position" for precision in manifest.precisions):
        return "gaussian.tie is position; expected column or global for a web"
    return None


def _check_gaussian(manifest: PadimManifest) -> str | None:
    tie, count = manifest.gaussian.tie, manifest.gaussian.count
    if tie == "class":
        return "gaussian.tie is class; expected position, column or global for a padim detector"
    if manifest.gaussian.lane_px is not None:
        return _check_lanes(manifest, manifest.gaussian.lane_px)
    expected = {"position": manifest.positions, "column": manifest.map.width, "global": 1}[tie]
    if count != expected:
        return f"gaussian.count is {count}; expected {expected} for Gaussians tied by {tie}"
    return None


def _check_lanes(manifest: PadimManifest, lane_px: int) -> str | None:
    tie, count, web = manifest.gaussian.tie, manifest.gaussian.count, manifest.web
    if tie != "column" or web is None:
        return f"gaussian.lane_px is {lane_px} for Gaussians tied by {tie}; expected the columns of a web"
    tile_px = manifest.input.width - 2 * web.halo
    map_stride = (tile_px + 2 * web.ring) // manifest.map.width
    if lane_px < map_stride:
        return f"gaussian.lane_px is {lane_px}; expected at least {map_stride}, a column of the map"
    expected = (tile_px - map_stride) // lane_px + 1
    if count != expected:
        return f"gaussian.count is {count}; expected {expected} lanes of {lane_px} px in a tile of {tile_px} px"
    return None
