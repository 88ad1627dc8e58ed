from Cython.Build import cythonize
from setuptools import setup

# Cython finds normfast/capi.pxd in the installed package; nothing is linked, and no include path is needed
setup(ext_modules=cythonize("pooling.pyx", language_level=3, compiler_directives={"boundscheck": False, "wraparound": False}))
