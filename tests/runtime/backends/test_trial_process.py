"""An engine is tried in a process of its own. Each test has a fresh process, whose only thread may fork."""

import json
import os
import signal
import subprocess
import sys
import time
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


@pytest.mark.parametrize(
    "raised", ["sys.exit(3)", "(_ for _ in ()).throw(BaseException('stop'))", "Trial('many', 1, 2)", "None"]
)
def test_a_trial_that_ends_in_no_answer_is_a_mistake_of_ours(raised: str):
    ((kind, text),) = run(f"tell(lambda: {raised})")
    assert kind == "RuntimeError"
    assert text.startswith("the trial of an engine failed:\nTraceback")


def test_a_mistake_before_the_trial_is_one_of_ours_too():
    ((kind, text),) = run("signal.set_wakeup_fd = None\ntell(lambda: Trial(0, 1, 2))")
    assert kind == "RuntimeError"
    assert "TypeError" in text


def test_an_answer_may_be_of_numbers_that_json_does_not_know():
    assert run("import numpy as np\ntell(lambda: Trial(np.float32(0.5), 1, np.int64(2)))") == [[0.5, 1, 2]]


def test_without_descriptors_the_trial_runs_here_and_none_is_lost():
    assert run("""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held, here = [], os.getpid()
while True:
    try:
        held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
for descriptor in held[:3]:  # enough for one pipe
    os.close(descriptor)
tell(lambda: Trial(os.getpid() == here, 1, 2))
free = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
print(json.dumps(len(free)))
""") == [[True, 1, 2], 3]


HANDLER = """
os.setpgid(0, 0)
ran, parent = [], os.getpid()
def handle(number, frame):
    os.write(1, b'"handled in the parent"\\n' if os.getpid() == parent else b'"handled in the child"\\n')
signal.signal(signal.SIGTERM, handle)
"""


def test_a_signal_to_all_is_handled_by_the_program_and_ends_the_trial():
    assert run(f"""{HANDLER}
def trial():
    os.killpg(0, signal.SIGTERM)
    time.sleep(0.3)
    return Trial(0, 1, 2)
tell(trial)
""") == ["handled in the parent", ["FlawlineError", f"its process was ended by signal 15 (Terminated) {ENDED}"]]


def test_a_signal_at_the_very_start_of_the_trial_is_not_handled_there():
    assert run(f"""{HANDLER}
fork = os.fork
def forked():
    pid = fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    return pid
os.fork = forked
tell(lambda: Trial(0, 1, 2))
""") == [["FlawlineError", f"its process was ended by signal 15 (Terminated) {ENDED}"]]


def test_a_trial_wakes_nobody_and_holds_and_ignores_the_signals_that_the_program_does():
    assert run("""
import socket
ends = socket.socketpair()
ends[1].setblocking(False)
signal.set_wakeup_fd(ends[1].fileno())
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
def held():
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
before = held()
tell(lambda: Trial(signal.set_wakeup_fd(-1), signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, held() == before))
print(json.dumps([signal.set_wakeup_fd(-1) == ends[1].fileno(), held() == before]))
""") == [[-1, 1, 1], [True, True]]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_trial_ends_with_its_program(end: signal.Signals):
    script = """
def trial():
    print("tried", flush=True)
    time.sleep(50)
trial_process.run_apart(trial)
"""
    with subprocess.Popen([sys.executable, "-c", PRELUDE + script], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"tried\n"
        start = time.monotonic()
        program.send_signal(end)
        # Until the last holder of the pipe has ended.
        assert program.stdout.read() == b""
        assert time.monotonic() - start < 20
    assert program.returncode == -end


@pytest.mark.parametrize(
    "system",
    [
        "os.kill = None",
        pytest.param("del os.pidfd_open", marks=pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="as it is")),
    ],
)
@pytest.mark.parametrize("interrupts", [1, 2])
def test_an_interrupt_ends_the_trial_too(system: str, interrupts: int):
    if "kill" in system and not hasattr(os, "pidfd_open"):
        pytest.skip("processes are known by their numbers here")
    outcomes = run(f"""
parent, kill, wait = os.getpid(), os.kill, os.waitpid
# A shell that starts this in the background has interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
{system}
def interrupted_wait(*args):
    if {interrupts} == 2:
        kill(parent, signal.SIGINT)
    return wait(*args)
os.waitpid = interrupted_wait
def trial():
    kill(parent, signal.SIGINT)
    time.sleep(50)
try:
    trial_process.run_apart(trial)
except KeyboardInterrupt:
    print(json.dumps("interrupted"))
try:
    wait(-1, 0)
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
