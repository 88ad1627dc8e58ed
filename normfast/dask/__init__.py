"""The bridge to Dask: statistics, scaling, norms and dropout of Dask arrays of any chunking, lazily.

Statistics merge up a fixed tree, so that their bits depend on the chunks alone; the mask of dropout does not depend even on these.

>>> import dask.array as da, numpy as np
>>> import normfast.dask as nfd
>>> x = da.from_array(np.arange(12.0).reshape(6, 2), chunks=(2, 2))
>>> m = nfd.moments(x, axis=0)
>>> m
LazyMoments(shape=(2,))
>>> m.compute().mean
array([5., 6.])
>>> nfd.standardize(x).compute()[0].round(3)
array([-1.464, -1.464])
"""

from normfast.extras import needed

needed("dask", "dask", "normfast.dask")

from normfast.dask.covariances import LazyCovariance, covariance, whiten  # noqa: E402  (in one line, what is missing, comes first)
from normfast.dask.masks import dropout  # noqa: E402
from normfast.dask.norms import batch_norm, batch_norm_forward, layer_norm, rms_norm  # noqa: E402
from normfast.dask.scaling import minmax_scale, standardize  # noqa: E402
from normfast.dask.statistics import LazyMoments, moments  # noqa: E402

__all__ = [
    "LazyCovariance",
    "LazyMoments",
    "batch_norm",
    "batch_norm_forward",
    "covariance",
    "dropout",
    "layer_norm",
    "minmax_scale",
    "moments",
    "rms_norm",
    "standardize",
    "whiten",
]
