from setuptools import Extension, setup

import normfast

# nothing is linked: the functions come with the module that normfast_import() loads
setup(ext_modules=[Extension("scoring", ["scoring.c"], include_dirs=[normfast.get_include()])])
