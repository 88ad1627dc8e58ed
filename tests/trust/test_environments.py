"""Places that are short of something: docstrings, a home, a locale, a folder, leave to write; and importing changes nothing."""

import locale
import os
import shutil
import subprocess
import sys

import pytest
from processes import LIMIT, PATH, digest, python

from normfast import engines

COMPUTE = "from processes import digest; print(digest())"
HELP = """
from normfast.cli import main
for arguments in (["--help"], ["moments", "--help"], ["info"]):
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, arguments
print("normfast")
"""


@pytest.mark.parametrize("flag", ["-O", "-OO", "-b", "-Xdev", "-I"])
def test_flags_of_python(flag):
    """Without assertions, without docstrings, with all checks, and with nothing of the environment; warnings are errors in all of them."""
    if flag == "-I":  # which takes no PYTHONPATH
        start = f"import sys; sys.path[:0] = {PATH.split(os.pathsep)!r}; "
        assert python(start + COMPUTE, flag) == digest()
    else:
        assert python(COMPUTE, flag) == digest()
    if flag == "-OO":
        assert python(HELP, flag).endswith("normfast")


ENVIRONMENTS = {
    "no home": {"HOME": None, "USERPROFILE": None, "XDG_CACHE_HOME": None},
    "a home that is not there": {"HOME": "/nowhere/at/all", "XDG_CACHE_HOME": "/nowhere/at/all"},
    "a folder for temporary files that is not there": {"TMPDIR": "/nowhere", "TEMP": "/nowhere", "TMP": "/nowhere"},
    "the C locale": {"LC_ALL": "C", "LANG": None, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    "Latin-1": {"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"},
    "no user": {"USER": None, "LOGNAME": None, "USERNAME": None},
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has other variables")
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_variables_of_the_environment(name):
    assert python(COMPUTE, **ENVIRONMENTS[name]) == digest()
    if name == "the C locale":
        assert python(HELP, **ENVIRONMENTS[name]).endswith("normfast")


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="Windows has other variables")
def test_numba_without_a_home():
    """Which keeps what it compiled in a folder there, if it is asked to."""
    pytest.importorskip("numba", reason="Numba is not installed here")
    assert python(COMPUTE.replace("digest()", "digest('numba')"), HOME="/nowhere", XDG_CACHE_HOME="/nowhere") == digest("numba")


def test_a_locale_that_writes_numbers_otherwise():
    """A comma before decimals, and other letters for those of names: Turkish has two kinds of i."""
    before = locale.setlocale(locale.LC_ALL)
    names = [name for name in ("de_DE.UTF-8", "tr_TR.UTF-8", "fr_FR.UTF-8", "German_Germany") if settable(name)]
    locale.setlocale(locale.LC_ALL, before)
    if not names:
        pytest.skip("no German, Turkish or French locale is installed here")
    for name in names:
        code = f"import locale; locale.setlocale(locale.LC_ALL, {name!r})\n"
        assert python(code + COMPUTE) == digest()
        assert python(code + HELP, OMP_NUM_THREADS="2").endswith("normfast")


def settable(name):
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        return False
    return True


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder in which a process is")
def test_a_folder_that_is_gone(tmp_path):
    code = "import os; os.rmdir(os.getcwd())\n"
    for work in (COMPUTE, HELP):
        folder = tmp_path / "gone"
        folder.mkdir()
        assert python(code + work, folder=folder).endswith(("normfast", digest()))


WRITES = """
import os, sys
found = []
changes = ["os." + name for name in ("chmod", "chown", "link", "mkdir", "remove", "rename", "rmdir", "symlink", "system", "truncate")]
changes += ["socket.bind", "socket.connect", "subprocess.Popen", "tempfile.mkdtemp", "tempfile.mkstemp"]

def hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != os.devnull:
            found.append((event, str(path)))
    elif event in changes:
        found.append((event, str(arguments)))

sys.addaudithook(hook)
import normfast as nf
from processes import digest
print(digest({engine!r}))
assert not found, found
"""


@pytest.mark.parametrize("name", ["cython", "numpy", pytest.param("numba", marks=pytest.mark.long)])
def test_nothing_is_written_and_nobody_called(name):
    """No file, no folder, no process, no socket: so it runs from read-only packages and file systems."""
    try:
        engines.load(name)
    except ImportError as error:
        pytest.skip(f"the {name} engine is not installed here: {error}")
    assert python(WRITES.format(engine=name), PYTHONDONTWRITEBYTECODE="1") == digest(name)


def test_without_shared_memory():
    """A container without /dev/shm."""
    unshare = shutil.which("unshare")
    command = [unshare, "--mount", "--map-root-user", "--user", "sh", "-c", 'umount -l /dev/shm && exec "$@"', "sh"]
    if unshare is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this system lets no process take /dev/shm away for itself (unshare --mount)")
    code = "import os; assert not os.path.exists('/dev/shm/.') or not os.path.ismount('/dev/shm')\n" + COMPUTE
    done = subprocess.run(
        [*command, sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, env=os.environ | {"PYTHONPATH": PATH}
    )
    assert (done.stdout.strip(), done.stderr) == (digest(), "")


STATE = """
import builtins, decimal, gc, locale, os, signal, sys, threading, warnings
import numpy as np

def state():
    tiny = np.array([1e-40, 2e-45], np.float32)
    return {
        "signal handlers": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "hooks": [sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, sys.gettrace(), *sys.meta_path],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold(), gc.isenabled()],
        "environment": dict(os.environ),
        "place": [os.getcwd(), locale.setlocale(locale.LC_ALL), list(sys.path)],
        "warnings": list(warnings.filters),
        "threads": threading.active_count(),
        "NumPy": [np.geterr(), np.get_printoptions(), np.random.get_state()[1].tobytes(), np.random.get_state()[2]],
        "subnormals": (tiny * np.float32(0.5)).tobytes(),
        "rounding": [1.0 + 2.0**-53, 1.0 + 3 * 2.0**-53, -1.0 - 2.0**-53, 1 / 3],
        "decimal": str(decimal.getcontext()),
        "builtins": sorted(vars(builtins)),
    }

before = state()
import normfast as nf
after = state()
changed = [name for name in before if before[name] != after[name]]
assert not changed, changed
from processes import digest
for engine in ("auto", "numpy"):
    digest(engine)
after = state()
changed = [name for name in before if before[name] != after[name]]
assert not changed, changed
print("same")
"""


def test_importing_and_computing_change_nothing():
    assert python(STATE) == "same"
