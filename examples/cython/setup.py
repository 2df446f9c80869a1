# SPDX-License-Identifier: MIT
from Cython.Build import cythonize
from setuptools import Extension, setup

import clstm

module = Extension("closed_loop", ["closed_loop.pyx"], include_dirs=[clstm.get_include()])
setup(name="closed_loop", ext_modules=cythonize([module]), py_modules=[])
