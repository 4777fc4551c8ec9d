"""An engine is tried in a process of its own. Each test has a fresh process, whose only thread may fork."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trials are forked on Linux alone")

PRELUDE = """
import json, math, os, signal, sys, threading, time
from flawline.runtime import errors
from flawline.runtime.backends import trial_process
from flawline.runtime.backends.selection import Trial

def tell(trial):
    try:
        outcome = list(trial_process.run_apart(trial))
    except Exception as error:
        outcome = [type(error).__name__, str(error)]
    print(json.dumps(outcome))
"""
ENDED = "before it had scored the golden frames"


def run(script: str) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_a_trial_loads_stays_out_of_this_process():
    outcomes = run("""
def trial():
    import zipapp
    return Trial(os.getpid(), 1e-3, 2.5)
tell(trial)
print(json.dumps(["zipapp" in sys.modules, os.getpid()]))
""")
    (pid, tolerance, milliseconds), (is_loaded, own_pid) = outcomes
    assert (tolerance, milliseconds) == (1e-3, 2.5)
    assert pid != own_pid
    assert not is_loaded


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_an_error_that_is_no_number_comes_through(number: str):
    assert str(run(f"tell(lambda: Trial(math.{number}, 1e-3, 2.5))")[0][0]) == number


@pytest.mark.parametrize(
    "kind", ["FlawlineError", "MissingExtraError", "EngineError", "BundleError", "ResourceError", "DeviceError"]
)
def test_errors_keep_their_kind_and_words(kind: str):
    assert run(f"""
class Special(errors.{kind}): pass
def trial():
    raise Special("no abacus, μ > 1")
tell(trial)
""") == [[kind, "no abacus, μ > 1"]]


def test_a_mistake_of_ours_is_none_of_those_errors():
    ((kind, text),) = run("tell(lambda: 1 / 0)")
    assert kind == "RuntimeError"
    assert "ZeroDivisionError" in text


@pytest.mark.parametrize(
    ("crash", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by signal 11 (Segmentation fault)"),
        ("os.abort()", "was ended by signal 6 (Aborted)"),
        ("os._exit(3)", "ended"),
    ],
)
def test_a_crash_is_an_engine_that_fails(crash: str, words: str):
    assert run(f"tell(lambda: {crash})") == [["FlawlineError", f"its process {words} {ENDED}"]]


def test_an_engine_that_hangs_is_ended():
    script = "trial_process._LONGEST_S = 1\ntell(lambda: time.sleep(50))"
    assert run(script) == [["FlawlineError", f"its process had 1 s, and was ended {ENDED}"]]


@pytest.mark.parametrize(
    "thread",
    [
        "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()",
        # One that Python does not know of: usleep takes what pthread_create hands on.
        "assert libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.usleep, ctypes.c_void_p(5_000_000)) == 0",
    ],
)
def test_beside_another_thread_the_trial_runs_here(thread: str):
    assert run(f"""
import ctypes
here, libc = os.getpid(), ctypes.CDLL(None)
{thread}
tell(lambda: Trial(os.getpid() == here, 1, 2))
os._exit(sys.stdout.flush() or 0)
""") == [[True, 1, 2]]


def test_children_that_nobody_waits_for_are_no_hindrance():
    script = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    assert run(script + "tell(lambda: Trial(0, 1, 2))") == [[0, 1, 2]]
    assert run(script + "tell(lambda: os.abort())") == [["FlawlineError", f"its process ended {ENDED}"]]


def test_an_interrupt_ends_the_trial_too():
    outcomes = run("""
parent = os.getpid()
def trial():
    os.kill(parent, signal.SIGINT)
    time.sleep(50)
try:
    trial_process.run_apart(trial)
except KeyboardInterrupt:
    print(json.dumps("interrupted"))
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print(json.dumps("no child is left"))
print(json.dumps(sorted(int(name) for name in os.listdir("/proc/self/fd"))))
""")
    assert outcomes[:2] == ["interrupted", "no child is left"]
    assert len(outcomes[2]) == 4, "descriptors: three of every process, and the listed folder's"


def test_only_the_chosen_engine_is_in_the_process_that_serves(tiny_bundle: Path):
    chosen, loaded, mapped = run(f"""
from pathlib import Path
from flawline.runtime import Detector
with Detector.open({str(tiny_bundle)!r}) as detector:
    engines, maps = ("onnxruntime", "openvino"), Path("/proc/self/maps").read_text()
    print(json.dumps(detector.backend))
    print(json.dumps([name for name in engines if name in sys.modules]))
    print(json.dumps([name for name in engines if f"/{{name}}/" in maps]))
""")
    assert loaded == mapped == [chosen]
