"""Compiles `normfast/kernels` ahead of time, once per instruction set; everything else stands in pyproject.toml.

The kernels are plain Python files typed by the `.pxd` files beside the drivers. Each instruction set gets a package of its own,
`normfast.engines.cython.<level>`, made from the same texts in a folder of its own. Where a compiler is missing or fails, the install
goes on without the Cython engine and says so once.
"""

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, ExecError, LinkError, PlatformError

KERNELS = (
    "sums", "moments", "rows", "factors", "activations", "normalize", "layer_norm", "group_norm", "slabs", "columns", "philox", "lp_norm",
    "deviations", "halves", "half_rows", "half_slabs", "dropout", "residual", "bias_activation",
)  # fmt: skip
DRIVERS = ("drivers", "shortcuts", "capi")  # who calls them
REORDERED = ("sums",)  # sums that may be added up in any order; everywhere else the order of the text holds
SOURCES, STAGES = Path("normfast/engines/cython"), Path("build/cython")

LEVELS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    LEVELS["x86_64_v3"] = ["-march=x86-64-v3"]
    # gcc takes vectors of 256 bits unless told; the slower clock that 512 once cost is gone since Ice Lake
    LEVELS["x86_64_v4"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]
if "NORMFAST_LEVELS" in os.environ:  # for who develops: these alone, 30 to 60 s each
    LEVELS = {level: LEVELS[level] for level in os.environ["NORMFAST_LEVELS"].split()}

# gcc gives up on a loop that needs more than 10 tests whether its arrays overlap; sums over four rows at once need 11
FLAGS = {
    "unix": ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "--param=vect-max-version-for-alias-checks=50"],
    "msvc": ["/O2", "/fp:contract"],
}
# halves.py reads one memory as integers and as floats, which C compilers must be told
ALIASED = ("halves",)
ALIAS_FLAGS = {"unix": ["-fno-strict-aliasing"], "msvc": []}
REORDER_FLAGS = {"unix": ["-fassociative-math", "-fno-signed-zeros"], "msvc": ["/fp:fast"]}
OPENMP = {"unix": ["-fopenmp"], "msvc": ["/openmp"]}
STRIPPED = ["-Wl,-s"] if sys.platform == "linux" else []  # with symbols, and the -g of Python, a level takes 3.2 MB of a wheel, else 0.7 MB
MSVC_LEVELS = {"baseline": [], "x86_64_v3": ["/arch:AVX2"], "x86_64_v4": ["/arch:AVX512"]}


def extensions():
    """One extension per kernel file and level, staged where each level's relative cimports find their own texts."""
    import numpy

    result = []
    for level in LEVELS:
        package = STAGES / level / SOURCES / level
        shutil.rmtree(STAGES / level, ignore_errors=True)
        package.mkdir(parents=True)
        for folder in (package, *list(package.parents)[:3]):
            (folder / "__init__.py").touch()
        for text in [*SOURCES.glob("*.p??"), Path("normfast/capi.pxd"), *(Path("normfast/kernels") / f"{name}.py" for name in KERNELS)]:
            shutil.copy(text, package)
        result += [
            Extension(f"normfast.engines.cython.{level}.{file.stem}", [str(file)], include_dirs=[numpy.get_include(), "normfast/include"])
            for file in [*(package / f"{name}.py" for name in KERNELS), *(package / f"{name}.pyx" for name in DRIVERS)]
        ]
    return result


def translate(extensions):
    """Put C in the place of their sources: only once they are built, since a frontend runs this file several times, 30 s each with this."""
    from Cython.Build import cythonize

    paths = [str(STAGES / level) for level in LEVELS]
    translated = cythonize(extensions, include_path=paths, language_level=3, compiler_directives=DIRECTIVES, quiet=True)
    for extension, result in zip(extensions, translated, strict=True):
        extension.sources = result.sources


DIRECTIVES = {"cdivision": True, "boundscheck": False, "wraparound": False, "embedsignature": True, "freethreading_compatible": True}


class BuildKernels(build_ext):
    """Adds the flags that this compiler takes; a build without a compiler ends well."""

    def run(self):
        super().run()
        if not self.inplace and Path(".git").exists():  # so that Python started in a clone's folder finds the engine too
            self.copy_extensions_to_source()

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        kind = self.compiler.compiler_type if self.compiler.compiler_type in FLAGS else "unix"
        try:
            self.try_compiler([])
        except (CCompilerError, CompileError, ExecError, LinkError, PlatformError, OSError) as error:
            self.extensions = []
            return warn(f"no C compiler that works ({error}): installing without the Cython engine")
        openmp = OPENMP[kind]
        try:
            self.try_compiler(openmp)
        except (CCompilerError, CompileError, ExecError, LinkError, PlatformError):
            openmp = []
            warn("this compiler has no OpenMP: the Cython engine will use one thread")
        levels = LEVELS if kind == "unix" else MSVC_LEVELS
        for level in LEVELS:
            try:
                self.try_compiler(levels[level])
            except (CCompilerError, CompileError, ExecError, LinkError, PlatformError):
                self.extensions = [extension for extension in self.extensions if f".{level}." not in extension.name]
                warn(f"this compiler cannot build for {level}: processors that have it will run another build")
        for extension in self.extensions:
            *_, level, name = extension.name.split(".")
            flags = FLAGS[kind] + levels[level] + openmp
            extension.extra_compile_args = (
                flags + (REORDER_FLAGS[kind] if name in REORDERED else []) + (ALIAS_FLAGS[kind] if name in ALIASED else [])
            )
            extension.extra_link_args = openmp + STRIPPED if kind == "unix" else []
        translate(self.extensions)
        try:
            super().build_extensions()
        except (CCompilerError, CompileError, ExecError, LinkError, PlatformError) as error:
            self.extensions = []
            warn(f"compiling the kernels failed ({error}): installing without the Cython engine")

    def copy_extensions_to_source(self):
        for level in LEVELS:
            (SOURCES / level).mkdir(exist_ok=True)
        super().copy_extensions_to_source()

    def try_compiler(self, flags):
        """Compile and link a file that includes Python's headers with these flags; raises what the compiler raises."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text("#include <Python.h>\n#ifdef _OPENMP\n#include <omp.h>\n#endif\nint probe(void) { return 0; }\n")
            objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags, include_dirs=self.compiler.include_dirs)
            self.compiler.link_shared_object(objects, str(Path(folder) / "probe.so"), extra_postargs=flags)


def warn(text):
    print(f"normfast: WARNING: {text}", file=sys.stderr, flush=True)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels})
