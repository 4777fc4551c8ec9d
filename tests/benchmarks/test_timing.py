import json

import numpy as np
import pytest

from flawline.benchmarks import timing
from flawline.benchmarks.tables import dumps, table, write_json
from flawline.runtime.errors import InputError


def test_percentiles_are_runs_that_happened():
    result = timing.Timing.of(np.random.default_rng(0).permutation(np.arange(1, 101)))
    assert (result.min_ns, result.p50_ns, result.p90_ns, result.p99_ns, result.max_ns) == (1, 50, 90, 99, 100)
    assert result.runs == 100
    assert result.mean_ns == 50.5


def test_the_tail_is_never_cut():
    assert timing.Timing.of([1] * 99 + [1_000_000]).max_ns == 1_000_000


def test_few_runs_and_wide_spread_are_called_unstable():
    assert "only 3 runs" in str(timing.Timing.of([1, 2, 3]).unstable)
    assert "spread" in str(timing.Timing.of([100] * 50 + [200] * 50).unstable)
    assert timing.Timing.of([100] * 100).unstable is None


def test_no_sample_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        timing.Timing.of([])


def test_cases_alternate_and_take_turns_to_start():
    calls: list[str] = []
    cases = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    results = timing.alternate(cases, rounds=3, warmup=1)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, 12, 3)]
    assert rounds == ["abc", "bca", "cab", "abc"]
    assert {name: result.runs for name, result in results.items()} == {"a": 3, "b": 3, "c": 3}


def test_null_overhead_is_small():
    assert timing.null_overhead().p50_ns < 10_000


def test_table_aligns_columns():
    assert table(["name", "ms"], [["a", 1.5], ["longer", 10]]) == "name     ms\n------  ---\na       1.5\nlonger   10"


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"value": 1})
    assert json.loads(path.read_text()) == {"value": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "absent" / "result.json", {})


def test_nan_is_not_json():
    with pytest.raises(ValueError, match="Out of range"):
        dumps({"value": float("nan")})
