"""Files larger than memory: their moments in one pass, their standardized, scaled or whitened values in another.

Files .npy, .npz, raw, .zarr (with zarr) and .parquet (with pyarrow) are read in blocks of 4 MB, which are computed while they are in the
caches. A run that was interrupted goes on where it was; a result gets its name when it is whole.

>>> import os, tempfile, numpy as np, normfast as nf
>>> with tempfile.TemporaryDirectory() as folder:
...     x, y = os.path.join(folder, "x.npy"), os.path.join(folder, "y.npy")
...     np.save(x, np.arange(6.0).reshape(3, 2))
...     done = nf.stream.transform(x, y, method="minmax")
...     np.load(y)
array([[0. , 0. ],
       [0.5, 0.5],
       [1. , 1. ]])
"""

from normfast.stream.errors import FileError
from normfast.stream.summing import covariance, moments
from normfast.stream.transforming import Transformed, transform
from normfast.stream.values import raw

__all__ = ["FileError", "Transformed", "covariance", "moments", "raw", "transform"]
