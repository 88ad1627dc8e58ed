"""The arithmetic, written once, in plain Python on rows and blocks.

Each file is compiled twice: by Numba from its function objects and by Cython ahead of time from its text, typed by the `.pxd` of
the same name in `normfast/engines/cython`. So a kernel allocates nothing, checks nothing, knows no `None` and no threads. Blocks
are C-contiguous; what one text cannot say in both languages stands in `primitives.py`.

Conventions: `x y dy dx weight bias mean rstd` as everywhere; `n` values in a run, `rows` and `c` columns in a block, `i` and `j`
their indices, `lo` and `hi` the part of a loop that one worker takes. Statistics are float64.
"""
