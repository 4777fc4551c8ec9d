from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from flawline.runtime.cameras import open_source
from flawline.runtime.cameras.replay import ReplayOptions, ReplaySource
from flawline.runtime.cameras.spec import SCHEMES, Scheme
from flawline.runtime.errors import FlawlineError, InputError


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "has no kind; expected one of replay"),
        ("web", "has no kind"),
        ("/data/web", "has no kind"),
        ("camera:web", "unknown kind 'camera'"),
        ("REPLAY:web", "unknown kind 'REPLAY'"),
        ("replay:", "no address"),
        ("replay:?block=3", "no address"),
        ("replay:web?", "has '' among its parameters; expected NAME=VALUE"),
        ("replay:web?block", "has 'block' among"),
        ("replay:web?block=", "has 'block=' among"),
        ("replay:web?=3", "has '=3' among"),
        ("replay:web?block=3&", "has '' among"),
        ("replay:web?block=3&block=4", "gives 'block' twice"),
        ("replay:web?speed=3", "unknown parameter 'speed'; expected one of line_rate, block, loop"),
        ("replay:web?block=many", "block=many; expected lines per block, 1 to 65536"),
        ("replay:web?block=0", "block=0; expected lines per block"),
        ("replay:web?block=1e9", "block=1e9; expected"),
        ("replay:web?line_rate=-1", "line_rate=-1; expected lines per second"),
        ("replay:web?line_rate=nan", "line_rate=nan"),
        ("replay:web?line_rate=inf", "line_rate=inf"),
        ("replay:web?loop=never", "loop=never; expected how often the images are played, 1 or more, or forever"),
        ("replay:web?loop=0", "loop=0; expected how often"),
        ("replay:web?block.=3", "unknown parameter 'block.'"),
        ("replay:web?block.lines=3", "block.lines=3; expected lines per block"),
    ],
)
def test_malformed_spec_is_refused_with_an_example(spec, message):
    with pytest.raises(InputError, match=r"replay:images|twice|unknown parameter") as raised:
        open_source(spec)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_punctuation_in_a_folder_is_written_as_in_a_url(web):
    folder, _ = web
    odd = folder.rename(folder.with_name("what? 50% off"))
    with open_source_closing(f"replay:{odd.parent}/what%3F 50%25 off") as source:
        assert source.width == 24


class CameraOptions(msgspec.Struct):
    width: Annotated[int, msgspec.Meta(description="pixels")] = 0
    feature: Annotated[dict[str, str], msgspec.Meta(description="a feature, written feature.NAME=VALUE")] = {}


@pytest.fixture
def created(monkeypatch) -> list[tuple[str, CameraOptions]]:
    """Address and options of each source of a kind `camera`, none of which can be opened."""
    seen = []

    def create(address, options, spec):
        seen.append((address, options))
        return ReplaySource(Path("nowhere"), ReplayOptions(), spec)

    monkeypatch.setitem(SCHEMES, "camera", Scheme(CameraOptions, create, "camera:1?feature.Gain=3"))
    return seen


def test_features_are_collected_by_name(created):
    with pytest.raises(InputError, match="nowhere does not exist"):
        open_source("camera:1?feature.Gain=3&width=8&feature.TriggerMode=On%20%26%20off")
    assert created == [("1", CameraOptions(8, {"Gain": "3", "TriggerMode": "On & off"}))]


@pytest.mark.parametrize("parameter", ["feature=3", "width.x=3"])
def test_feature_without_a_name_is_refused(created, parameter):
    with pytest.raises(InputError, match=r"expected .*, as in camera:1\?feature.Gain=3"):
        open_source(f"camera:1?{parameter}")
    assert created == []


def test_number_of_a_sequence_is_no_escape(created):
    with pytest.raises(InputError):
        open_source("camera:a%20b/%04d.png")
    assert created[0][0] == "a b/%04d.png"


def test_parameters_reach_the_source(web):
    with open_source_closing(f"replay:{web[0]}?line_rate=2e4&block=3") as source:
        assert (source.line_rate, source.block_lines) == (20000, 3)
    with open_source_closing(f"replay:{web[0]}") as source:
        assert source.line_rate is None


@pytest.mark.parametrize("name", SCHEMES)
def test_examples_parse(name):
    example = SCHEMES[name].example
    assert example.startswith(f"{name}:")
    # Nothing that they name is there, and a library may not be installed.
    with pytest.raises(FlawlineError, match=r"does not exist|does not answer|cannot be (imported|loaded)"):
        open_source(example)


def open_source_closing(spec: str):
    from contextlib import closing

    return closing(open_source(spec))
