"""Security: no code runs from data, workflows run pinned actions, dependencies are audited."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "normfast").rglob("*.py"))
RUNS_CODE = {"eval", "exec", "compile", "__import__"}  # as functions of Python itself
UNSAFE = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def calls(tree):
    """(dotted name of what is called, the call)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call, name):
    """The text of a keyword argument, or None."""
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def faults(text):
    """What a source must not do, by line."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        yield from (f"{node.lineno}: imports {name}" for name in names if name.partition(".")[0] in UNSAFE)
    for name, call in calls(tree):
        if name in RUNS_CODE:
            yield f"{call.lineno}: calls {name}"
        if name in ("os.system", "os.popen", "tempfile.mktemp"):
            yield f"{call.lineno}: calls {name}"
        if keyword(call, "shell") not in (None, "False"):
            yield f"{call.lineno}: runs a shell"
        if keyword(call, "allow_pickle") not in (None, "False"):
            yield f"{call.lineno}: unpickles arrays"
        if name in ("np.load", "numpy.load", "np.save", "numpy.save", "format.read_array") and keyword(call, "allow_pickle") != "False":
            yield f"{call.lineno}: {name} without allow_pickle=False"
        if name == "torch.load" and keyword(call, "weights_only") != "True":
            yield f"{call.lineno}: torch.load without weights_only=True"


def test_nothing_runs_what_it_reads(tried):
    assert len(FILES) > 100
    found = [f"{file.relative_to(ROOT)}:{fault}" for file in FILES for fault in faults(file.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)
    tried(len(FILES))


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')", "exec(x)", "import pickle", "from pickle import loads", "import yaml", "np.load(f)", "np.load(f, allow_pickle=True)",
        "read(f, allow_pickle=asked)", "subprocess.run(x, shell=True)", "os.system('x')", "torch.load(f)", "tempfile.mktemp()",
        "np.save(f, 1)",
    ],
)  # fmt: skip
def test_the_check_finds(line):
    assert list(faults(line))


def test_the_check_lets_through():
    assert not list(faults("model.eval()\nnp.load(f, allow_pickle=False)\nsubprocess.run(['x'])\nre.compile('x')"))


def test_actions_are_pinned_by_commit(tried):
    if not WORKFLOWS:
        pytest.skip("the tests run without the repository's workflow files")
    lines = [line for file in WORKFLOWS for line in file.read_text(encoding="utf-8").splitlines() if re.search(r"\buses:", line)]
    loose = [line.strip() for line in lines if not re.search(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)]
    assert lines
    assert not loose, loose
    versions = {tuple(re.search(r"uses: (\S+)@(\S+) # (\S+)", line).groups()) for line in lines}
    assert len({name for name, _, _ in versions}) == len(versions), f"one action in two versions: {sorted(versions)}"
    tried(len(lines))


def test_workflows_take_no_more_rights_than_they_need():
    if not WORKFLOWS:
        pytest.skip("the tests run without the repository's workflow files")
    for file in WORKFLOWS:
        assert re.search(r"^permissions:\n  contents: read$", file.read_text(encoding="utf-8"), re.MULTILINE), (
            f"{file.name} has the default rights"
        )


def test_the_policy_says_where_to_report():
    if not (path := ROOT / "SECURITY.md").exists():
        pytest.skip("the tests run without the repository's files")
    text = path.read_text(encoding="utf-8")
    assert "private reporting" in text
    assert not re.search(r"[\w.]+@[\w.]+", text), "an address that nobody reads is worse than none"


@pytest.mark.long
def test_dependencies_have_no_known_faults():
    if importlib.util.find_spec("pip_audit") is None:
        pytest.skip("pip-audit is not installed")
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--timeout", "20", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    said = done.stdout + done.stderr
    if re.search(r"ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|Max retries|ServiceError|resolution|HTTPError", said):
        pytest.skip("pip-audit asks a database on the network, which cannot be reached from here")
    assert done.returncode == 0, said
