"""The options of `flawline fit`: each reaches the field of its name, and says what it expects."""

import argparse
from dataclasses import fields

import pytest

from flawline.benchmarks.commands import bench_accuracy, bench_jl, bench_latency
from flawline.calibration.statistics import StatisticsOptions
from flawline.export.commands import fit
from flawline.export.commands.options import chosen, fit_options
from flawline.export.options import FitOptions

NEEDED = {
    fit: ["good", "--out", "made"],
    bench_accuracy: ["--data", "d"],
    bench_latency: ["--images", "d"],
    bench_jl: [],
}


def parse(*words, command=fit):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([*NEEDED[command], *words])


def test_without_options_a_fit_has_the_defaults_of_the_library():
    assert fit_options(parse()) == FitOptions()


def test_every_field_has_an_option():
    reachable = set(vars(parse()))
    named = {field.name for kind in (FitOptions, StatisticsOptions) for field in fields(kind)} - {"statistics"}
    assert named <= reachable


def test_options_reach_their_fields():
    words = "--backbone net.onnx --layers a,b --weights w.pth --image-size 96 --map-stride 0 --mean 9 --std 1,2,3"
    words += " --projection sparse --dim 7 --tie column --components 2 --epsilon 0.5 --epsilon-absolute"
    words += " --shrinkage 0.25 --factors fp32 --upsampling nearest --smoothing 3 --false-reject-rate 0.2"
    words += " --calibration-images 8 --fit-images 9 --group-by x --skip-bad --seed 4 --threads 2"
    statistics = StatisticsOptions(
        tie="column", components=2, epsilon=0.5, epsilon_relative=False, shrinkage=0.25, factors="fp32", seed=4
    )
    assert fit_options(parse(*words.split())) == FitOptions(
        backbone="net.onnx",
        layers=("a", "b"),
        weights="w.pth",
        image_size=96,
        map_stride=0,
        mean=(9.0,),
        std=(1.0, 2.0, 3.0),
        projection="sparse",
        dimension=7,
        upsampling="nearest",
        smoothing_px=3.0,
        statistics=statistics,
        false_reject_rate=0.2,
        calibration_images=8,
        fit_images=9,
        group_by="x",
        skip_bad=True,
        seed=4,
        threads=2,
    )


@pytest.mark.parametrize("command", [bench_accuracy, bench_latency, bench_jl], ids=lambda module: module.__name__)
def test_benchmarks_take_the_same_words_for_a_network(command):
    words = ["--backbone", "net.onnx", "--layers", "a,b", "--mean", "9", "--std", "1,2,3", "--map-stride", "4"]
    network = ("backbone", "layers", "mean", "std", "map_stride")
    fitted = chosen(FitOptions, parse(*words))
    measured = chosen(FitOptions, parse(*words, command=command))
    assert {name: measured[name] for name in network} == {name: fitted[name] for name in network}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shrinkage", "abc"], "'abc'; expected oas, ledoit-wolf or a number from 0 to 1"),
        (["--mean", "1,2"], "'1,2'; expected one number, or three such as 124,116,104"),
        (["--std", "grey"], "'grey'; expected one number, or three"),
    ],
)
def test_a_word_that_is_none_is_refused_with_what_is_expected(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(*words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["oas", "ledoit-wolf"])
def test_an_estimator_may_choose_the_shrinkage(name):
    assert fit_options(parse("--shrinkage", name)).statistics.shrinkage == name
