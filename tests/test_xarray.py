"""xarray: the functions by names of dimensions, through `apply_ufunc`, and with a DataArray in the place of an array."""

import doctest
import functools
from pathlib import Path

import numpy as np
import pytest
from oracle import agree

import normfast as nf
from normfast.preprocessing import minmax_scale, standardize

xr = pytest.importorskip("xarray", reason="xarray is not installed")
CORE = {"input_core_dims": [["channel"]], "output_core_dims": [["channel"]]}


@pytest.fixture
def da(rng, dtype):
    """Two samples in time, four channels, a grid; everything that a DataArray may carry."""
    return xr.DataArray(
        rng.normal(3, 1, (6, 4, 5)).astype(dtype),
        dims=("time", "channel", "x"),
        coords={"time": np.arange(6), "channel": list("abcd"), "lon": ("x", np.linspace(0, 1, 5)), "season": ("time", list("wwssff"))},
        name="temperature",
        attrs={"units": "K"},
    )


def carries(y, da):
    """Assert that y is a DataArray with the names, coordinates, attributes and dtype of another."""
    assert isinstance(y, xr.DataArray)
    assert (y.name, y.attrs, y.dtype) == (da.name, da.attrs, da.dtype)
    xr.testing.assert_equal(y.coords.to_dataset(), da.coords.to_dataset())


@pytest.mark.parametrize("norm", [nf.layer_norm, nf.rms_norm])
def test_norms_along_a_named_dimension(norm, da, engine):
    weight = xr.DataArray(np.array([1, -2, 0.5, 3], da.dtype), dims="channel", coords={"channel": da.channel})
    arrays = (da, weight, weight + 1) if norm is nf.layer_norm else (da, weight)
    y = xr.apply_ufunc(norm, *arrays, input_core_dims=[["channel"]] * len(arrays), output_core_dims=[["channel"]], keep_attrs="override")
    assert y.dims == ("time", "x", "channel")
    y = y.transpose(*da.dims)
    carries(y, da)
    expected = norm(da.values.swapaxes(1, 2).copy(), *(values.values for values in arrays[1:])).swapaxes(1, 2)
    agree(y.values, expected, norm.__name__)
    carries(da.copy(data=norm(da, axis=da.get_axis_num("channel"))), da)


def test_batch_norm_with_given_statistics(da):
    mean, var = da.mean(("time", "x")), da.var(("time", "x")) + 1
    y = xr.apply_ufunc(
        nf.batch_norm, da, mean, var, input_core_dims=[["channel"]] * 3, output_core_dims=[["channel"]], kwargs={"axis": -1, "eps": 0.5},
        keep_attrs="override",
    ).transpose(*da.dims)  # fmt: skip
    carries(y, da)
    agree(y.values, nf.batch_norm(da.values, mean.values, var.values, axis=1, eps=0.5), "batch_norm")


def several(x, ddof=0):
    m = nf.moments(x, axis=(-2, -1), nan_policy="omit")
    return m.mean, m.var(ddof), m.count


def test_moments_are_several_results(da):
    da[0, 0, 0] = np.nan
    dims = ["time", "x"]
    mean, var, count = xr.apply_ufunc(
        several, da, input_core_dims=[dims], output_core_dims=[[], [], []], kwargs={"ddof": 1}, keep_attrs="override"
    )
    m = nf.moments(da.values, (0, 2), nan_policy="omit")
    for result, expected in ((mean, m.mean), (var, m.var(1)), (count, m.count)):
        assert result.dims == ("channel",)
        assert result.attrs == da.attrs
        assert result.channel.values.tolist() == list("abcd")
        agree(result.values.astype(float), expected, "moments")
    assert count.values.tolist() == [29, 30, 30, 30]


@pytest.mark.parametrize("scale", [standardize, minmax_scale])
@pytest.mark.parametrize("dims", [["time"], ["x", "time"]])
def test_scaling_along_named_dimensions(scale, dims, da):
    da[1, 2, 3] = np.nan
    axes = tuple(range(-len(dims), 0))
    y = xr.apply_ufunc(scale, da, input_core_dims=[dims], output_core_dims=[dims], kwargs={"axis": axes}, keep_attrs="override")
    y = y.transpose(*da.dims)
    carries(y, da)
    expected = scale(da.values, axis=da.get_axis_num(dims))
    assert np.argwhere(np.isnan(y.values)).tolist() == [[1, 2, 3]]
    agree(np.nan_to_num(y.values), np.nan_to_num(expected), scale.__name__)


def test_dropout_draws_in_the_order_of_the_values(da):
    y = xr.apply_ufunc(nf.dropout, da, kwargs={"p": 0.5, "rng": 7}, keep_attrs="override")
    carries(y, da)
    assert y.values.tobytes() == nf.dropout(da.values, 0.5, rng=7).tobytes()


def test_a_dataset_variable_by_variable(da):
    both = xr.Dataset({"t": da, "u": da * 2}, attrs={"title": "weather"})
    y = xr.apply_ufunc(nf.layer_norm, both, **CORE, keep_attrs="override")
    assert y.attrs == both.attrs
    for name in both:
        alone = xr.apply_ufunc(nf.layer_norm, both[name], **CORE, keep_attrs="override")
        xr.testing.assert_identical(y[name], alone)
    whole = both.assign(n=da.astype(int))
    with pytest.raises(TypeError, match="got int64"):
        xr.apply_ufunc(nf.layer_norm, whole, **CORE)
    with pytest.raises(TypeError, match="Dataset into a numpy array"):
        nf.layer_norm(both)


def test_lazy_where_the_core_dimension_is_one_chunk(da):
    pytest.importorskip("dask.array", reason="Dask is not installed")
    lazy = da.chunk(time=2, x=3)
    options = {"dask": "parallelized", "output_dtypes": [da.dtype], "keep_attrs": "override"}
    y = xr.apply_ufunc(nf.layer_norm, lazy, **CORE, **options)
    assert y.chunks == ((2, 2, 2), (3, 2), (4,))
    expected = xr.apply_ufunc(nf.layer_norm, da, **CORE, keep_attrs="override")
    carries(y.compute(), expected)
    agree(y.values, expected.values, "layer_norm by Dask")
    with pytest.raises(ValueError, match="multiple chunks"):
        xr.apply_ufunc(nf.layer_norm, da.chunk(channel=2), **CORE, **options)
    results = xr.apply_ufunc(
        several, lazy.chunk(time=-1, x=-1, channel=2), input_core_dims=[["time", "x"]], output_core_dims=[[], [], []],
        dask="parallelized", output_dtypes=[float, float, int],
    )  # fmt: skip
    for result, expected in zip(results, several(np.moveaxis(da.values, 1, 0).copy()), strict=True):
        agree(result.values.astype(float), expected, "moments by Dask")


def test_chunks_would_share_a_dropout_mask(da):
    """Why the page warns of it: the stream begins anew in every chunk."""
    pytest.importorskip("dask.array", reason="Dask is not installed")
    call = functools.partial(nf.dropout, p=0.5, rng=3)
    y = xr.apply_ufunc(call, (da * 0 + 1).chunk(time=2), dask="parallelized", output_dtypes=[da.dtype]).values
    assert (y[:2] == y[2:4]).all()
    assert not (nf.dropout(np.ones_like(da.values), 0.5, rng=3)[:2] == nf.dropout(np.ones_like(da.values), 0.5, rng=3)[2:4]).all()


def test_a_data_array_in_the_place_of_an_array(da):
    """It is taken as its values: NumPy arrays come out, nothing is written, and Dask's are computed."""
    before = da.copy(deep=True)
    for call in (
        nf.layer_norm, lambda x: nf.batch_norm_forward(x)[0], lambda x: nf.dropout(x, 0.5, rng=0), lambda x: nf.activation(x, "gelu"),
        lambda x: nf.layer_norm_backward(x, x, nf.layer_norm_forward(x)[1]).dx, standardize, lambda x: nf.moments(x, 1).m2,
    ):  # fmt: skip
        y, expected = call(da), call(da.values)
        assert type(y) is np.ndarray
        assert y.tobytes() == expected.tobytes()
    xr.testing.assert_identical(da, before)
    assert nf.moments(da, weights=xr.DataArray(np.ones(6)), axis=0).mean.shape == (4, 5)
    assert nf.layer_norm(da, where=da > 3).tobytes() == nf.layer_norm(da.values, where=da.values > 3).tobytes()
    assert nf.covariance(da[:, :, 0]).cov().shape == (4, 4)
    with pytest.raises(TypeError, match="out must be a NumPy array, got DataArray"):
        nf.layer_norm(da, out=da)
    assert nf.layer_norm(before, out=da.values) is da.values
    assert (da.values == nf.layer_norm(before)).all()


def test_dask_behind_a_data_array_is_computed(da):
    pytest.importorskip("dask.array", reason="Dask is not installed")
    assert nf.layer_norm(da.chunk(time=1)).tobytes() == nf.layer_norm(da.values).tobytes()


@pytest.mark.parametrize("values", [np.array([["a"]]), np.array([["2001-01-01"]], "M8[ns]"), np.array([[1 + 1j]]), np.array([[None]])])
def test_values_that_are_no_numbers(values):
    with pytest.raises(TypeError, match="x must be"):
        nf.layer_norm(xr.DataArray(values))


def test_empty_dimensions():
    da = xr.DataArray(np.zeros((0, 3), np.float32), dims=("time", "channel"))
    assert xr.apply_ufunc(nf.layer_norm, da, **CORE).shape == (0, 3)
    assert nf.moments(da, 0).count == 0


def test_groups_merge_into_the_whole(da):
    groups = da.groupby("season")
    parts = [nf.moments(group, group.get_axis_num("time")) for _, group in groups]
    merged, whole = nf.Moments.merge(parts), nf.moments(da.values, 0)
    assert (len(parts), merged.count) == (3, whole.count)
    agree(merged.mean, whole.mean, "mean of merged groups")
    # sums down a column start from its first value: with n = 6 values, each of up to n + 1 times their squares (docs/numerics.md, A)
    agree(merged.m2, whole.m2, "m2 of merged groups", units=32)
    y = groups.map(lambda group: group.copy(data=standardize(group, axis=group.get_axis_num("time"))))
    assert y.dims == da.dims
    xr.testing.assert_equal(y.season, da.season)
    for season in "wsf":
        rows = da.season.values == season
        agree(y.values[rows], standardize(da.values[rows], axis=0), f"season {season}")


def test_the_variance_of_float32_beside_xarrays(rng):
    p = xr.DataArray(rng.normal(1013.25, 0.1, (50_000, 3)).astype(np.float32), dims=("time", "station"))
    exact = p.values.astype(np.longdouble).var(0)
    agree(nf.moments(p, 0).var(), exact, "variance of pressure", units=64)
    assert np.abs(p.var("time").values / exact - 1).max() > 1  # or the page has no warning to give


def test_the_examples_of_the_page():
    """xarray's part alone, which needs nothing else."""
    page = (Path(__file__).parents[1] / "docs" / "interoperability.md").read_text()
    part = page[page.index("## xarray") : page.index("## Estimators: frames")]
    example = doctest.DocTestParser().get_doctest(part, {"np": np, "nf": nf}, "xarray", None, 0)
    result = doctest.DocTestRunner(verbose=False).run(example)
    assert (result.failed, result.attempted > 10) == (0, True)
