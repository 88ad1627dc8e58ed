"""Check wheels as their user meets them: what they carry, and that they work where there is neither a compiler nor Numba.

    python tools/check_wheel.py wheelhouse/*.whl              what each carries, and its size
    python tools/check_wheel.py --install wheelhouse/*.whl    and in a fresh environment, with this Python: `normfast info` and tests

Run it from the folder of the checkout, whose tests it takes; the wheels to install are those of this Python.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

MOST = 6_000_000  # bytes
LEVELS = {"x86_64": ("baseline", "x86_64_v3", "x86_64_v4"), "amd64": ("baseline", "x86_64_v3", "x86_64_v4")}
REQUIRED = ("normfast/py.typed", "normfast/engines/cython/rows.pxd", "normfast/engines/cython/drivers.pyx", "normfast/kernels/rows.py")
UNWANTED = (".c", ".cpp", ".o", ".pyc", ".h5", ".npy")
TOOLS = ["pytest>=8", "hypothesis>=6.100", "pandas>=2.2"]  # beside these extras, of which none brings Numba
EXTRAS = "bfloat16,demo,safetensors"
TESTS = ["distribution", "threads", "engines", "package", "containers", "norms", "dropout", "halves"]


def complaints(path):
    """What is wrong with the contents of a wheel, as a list of lines."""
    path = Path(path)
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    platform = path.stem.rsplit("-", 1)[-1]
    found = [f"{path.stat().st_size / 1e6:.2f} MB: {MOST / 1e6:.0f} are allowed"] if path.stat().st_size >= MOST else []
    found += [f"{name} is missing" for name in REQUIRED if name not in names]
    found += [f"{name} does not belong here" for name in names if name.endswith(UNWANTED) or name.startswith(("tests/", "build/"))]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("the license is missing")
    if platform.startswith("linux"):
        found.append(f"its platform is {platform}: repair it with auditwheel")
    modules = {level: compiled(names, level) for level in levels(platform)}
    if "drivers" not in modules["baseline"]:
        found.append("the compiled kernels are missing")
    for level, names in modules.items():
        lacking = sorted(set.union(*modules.values()) - names)
        found += [f"{level} lacks {', '.join(lacking)}"] if lacking else []
    return found


def levels(platform):
    """The builds that a wheel of this platform has."""
    return next((names for machine, names in LEVELS.items() if platform.endswith(machine)), ("baseline",))


def compiled(names, level):
    """The extension modules of a build."""
    paths = [PurePosixPath(name) for name in names if name.endswith((".so", ".pyd"))]
    return {path.name.split(".")[0] for path in paths if path.parent == PurePosixPath("normfast/engines/cython") / level}


def install(path):
    """Install a wheel in an environment without a compiler, and run the tests there."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True, symlinks=os.name != "nt")
        scripts = Path(sysconfig.get_path("scripts", "venv", vars={"base": folder, "installed_base": folder}))
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment |= {"PATH": str(scripts), "CC": "/bin/false", "CXX": "/bin/false"}
        environment["PYTHONSAFEPATH"] = "1"  # the checkout has a folder `normfast` too
        if qemu := shutil.which("qemu-x86_64"):  # for the tests on other processors
            (scripts / "qemu-x86_64").symlink_to(qemu)
        assert not any(shutil.which(name, path=str(scripts)) for name in ("cc", "gcc", "clang", "cl")), "there is a compiler"

        def run(program, *arguments):
            print(f"$ {program} {' '.join(map(str, arguments))}", flush=True)
            subprocess.run([scripts / program, *arguments], check=True, env=environment)

        run("pip", "install", "--quiet", "--only-binary=:all:", f"{path}[{EXTRAS}]", *TOOLS)
        run("normfast", "info")
        run("pytest", "-q", "-rs", "-p", "no:cacheprovider", *(f"tests/test_{name}.py" for name in TESTS))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", nargs="+", type=Path, help="the files")
    parser.add_argument("--install", action="store_true", help="install each in a fresh environment, and test it there")
    options = parser.parse_args(arguments)
    wrong = 0
    for path in options.wheels:
        found = complaints(path)
        wrong += len(found)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, " + ("; ".join(found) or "as it should be"), flush=True)
        if options.install and not found:
            install(path.resolve())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
