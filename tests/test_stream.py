"""Files larger than memory, by files smaller than it in blocks of 4 kB: every format gives what the call in memory gives."""

import math
import os

import numpy as np
import pytest
from oracle import agree
from streams import IN_MEMORY, by_statistics, left_in, small_blocks

import normfast as nf
from normfast.preprocessing import Standardizer, whiten
from normfast.stream.grid import Grid, grid_for
from normfast.stream.values import raw

SHAPES = (((1000, 7), (0, 1, None)), ((3001,), (0, None)), ((5, 6, 7, 40), ((0, 2, 3), 1, 3, (0, 1), (0, 3), None)), ((1, 1), (0, 1)))
DTYPES = ("<f4", "<f8", "<f2", "<i4", "|u1", ">f4", ">f8")


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    small_blocks(monkeypatch)


def wide(x, axis):
    """Mean and m2 in longdouble."""
    x = x.astype(np.longdouble)
    mean = x.mean(axis=axis, keepdims=True)
    return mean.reshape(x.sum(axis=axis).shape), ((x - mean) ** 2).sum(axis=axis)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axes"), SHAPES)
def test_moments_of_npy(shape, axes, dtype, order, tmp_path, rng):
    x = np.asarray(rng.standard_normal(shape) * 9 + 100).astype(dtype, order=order)
    np.save(tmp_path / "x.npy", x)
    for axis in axes:
        m, (mean, m2) = nf.stream.moments(tmp_path / "x.npy", axis), wide(x, axis)
        assert m.count == nf.moments(x, axis).count
        agree(m.mean, mean, f"mean {axis}", units=8)
        agree(m.m2, m2, f"m2 {axis}", units=64)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", DTYPES)
def test_transform_of_npy(dtype, order, tmp_path, rng):
    """Given the statistics, the bits of the call in memory; of "minmax", whose statistics are exact, its bits in any case."""
    for shape, axes in SHAPES:
        x = np.asarray(rng.standard_normal(shape) * 9 + 100).astype(dtype, order=order)
        np.save(tmp_path / "x.npy", x)
        before = (tmp_path / "x.npy").read_bytes()
        for axis in axes:
            for method, f in IN_MEMORY.items():
                done = nf.stream.transform(tmp_path / "x.npy", tmp_path / "y.npy", axis=axis, method=method, force=True, check=True)
                y, expected = np.load(tmp_path / "y.npy"), f(x, axis=axis)
                assert y.dtype == expected.dtype == done.dtype
                assert y.shape == done.shape
                assert y.flags.f_contiguous == expected.flags.f_contiguous
                if method == "standardize":
                    agree(y, expected, f"{shape} {axis}", units=16 + 2 * 12, scale=1.0 + np.abs(expected).max())  # |mean| / std
                    expected = by_statistics(x, done.statistics, axis)
                assert y.tobytes("A") == expected.tobytes("A"), (shape, axis, method)
        assert (tmp_path / "x.npy").read_bytes() == before
    assert left_in(tmp_path) == ["x.npy", "y.npy"]


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_whitening(order, dtype, tmp_path, rng):
    x = np.asarray(rng.standard_normal((2000, 6)) @ (2 * np.eye(6) + rng.uniform(-0.2, 0.2, (6, 6))) * 50 + 100).astype(dtype, order=order)
    np.save(tmp_path / "x.npy", x)
    done = nf.stream.transform(tmp_path / "x.npy", tmp_path / "y.npy", method="whiten", ddof=1, check=True)
    y = np.load(tmp_path / "y.npy")
    agree(y, whiten(x, ddof=1), "whiten", units=256)
    agree(done.statistics.cov(), nf.covariance(x).cov(), "covariance", units=64)
    agree(nf.stream.covariance(tmp_path / "x.npy").m2, nf.covariance(x).m2, "covariance", units=64)


def test_result_dtypes(tmp_path, rng):
    """Values are computed in the wider of both types and rounded once."""
    for source, target, computed in (("f4", "f8", "f8"), ("f8", "f4", "f8"), ("i2", "f4", "f8"), ("f2", "f4", "f4"), ("f4", "f2", "f4")):
        x = (rng.standard_normal((300, 20)) * 50).astype(source)
        np.save(tmp_path / "x.npy", x)
        done = nf.stream.transform(tmp_path / "x.npy", tmp_path / "y.npy", dtype=target, force=True, check=True)
        expected = by_statistics(x.astype(computed), done.statistics, 0).astype(target)
        assert np.load(tmp_path / "y.npy").tobytes() == expected.tobytes(), (source, target)
    for wrong in ("i4", "c16", ">f4", "g"):
        with pytest.raises(TypeError, match="dtype must be float16, float32 or float64"):
            nf.stream.transform(tmp_path / "x.npy", tmp_path / "z.npy", dtype=wrong)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_npy(version, tmp_path, rng):
    x = rng.standard_normal((40, 30))
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, x, version=version)
    assert nf.stream.moments(tmp_path / "x.npy").mean == pytest.approx(x.mean())


def test_raw(tmp_path, rng):
    x = rng.standard_normal((200, 30)).astype(">f4")
    (tmp_path / "x.raw").write_bytes(b"head!" + x.tobytes("F"))
    source = raw(tmp_path / "x.raw", (-1, 30), ">f4", offset=5, order="F")
    nf.stream.transform(source, tmp_path / "y.raw", check=True, method="minmax")
    y = np.fromfile(tmp_path / "y.raw", np.float32).reshape(30, 200).T
    assert (y == IN_MEMORY["minmax"](x.astype(np.float32))).all()


def test_members_of_npz(tmp_path, rng):
    x, z = rng.standard_normal((500, 9)), rng.standard_normal((30, 40)).astype(np.float32, order="F")
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", x=x, z=z)
        for name, array in (("x", x), ("z", z)):
            for axis in (0, 1, None):
                mean = nf.stream.moments(f"{tmp_path}/x.npz:{name}", axis).mean
                agree(mean, array.mean(axis, dtype=np.longdouble), "npz", units=64, scale=float(np.abs(array).max()))
            nf.stream.transform(tmp_path / "x.npz", tmp_path / "y.npy", member=name, method="minmax", force=True, check=True)
            assert (np.load(tmp_path / "y.npy") == IN_MEMORY["minmax"](array)).all()
        with pytest.raises(ValueError, match=r"holds x, z: choose one, as in x\.npz:x"):
            nf.stream.moments(tmp_path / "x.npz")
        with pytest.raises(ValueError, match="has no member 'w'"):
            nf.stream.moments(tmp_path / "x.npz:w")


def test_systems_that_read_at_no_position(monkeypatch, tmp_path, rng):
    """Windows has neither preadv nor pwrite."""
    for name in ("preadv", "pwrite"):
        monkeypatch.delattr(os, name, raising=False)
    x = rng.standard_normal((700, 31)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = nf.stream.transform(tmp_path / "x.npy", tmp_path / "y.npy", check=True)
    assert np.array_equal(np.load(tmp_path / "y.npy"), by_statistics(x, done.statistics, 0))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("version", [2, 3])
def test_zarr(version, tmp_path, rng):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    x = rng.standard_normal((70, 31)).astype(np.float32)
    more = {"shards": (20, 30)} if version == 3 else {}
    zarr.create_array(tmp_path / "x.zarr", data=x, chunks=(10, 15), zarr_format=version, **more)
    zarr.open_group(tmp_path / "g.zarr", mode="w").create_array("inner", data=x, chunks=(9, 31))
    for source in (tmp_path / "x.zarr", f"{tmp_path}/g.zarr:inner", zarr.open_array(tmp_path / "x.zarr")):
        for axis in (0, 1, None):
            mean = nf.stream.moments(source, axis).mean
            agree(mean, x.mean(axis, dtype=np.longdouble), "zarr", units=64, scale=float(np.abs(x).max()))
            done = nf.stream.transform(source, tmp_path / "y.zarr", axis=axis, force=True, check=True)
            assert (zarr.open_array(tmp_path / "y.zarr")[:] == by_statistics(x, done.statistics, axis)).all()
        nf.stream.transform(source, tmp_path / "y.npy", method="whiten", check=True, force=True)
    assert zarr.open_array(tmp_path / "y.zarr").chunks == (10, 15)
    nf.stream.transform(tmp_path / "y.npy", tmp_path / "w.zarr", method="minmax", check=True)
    assert (zarr.open_array(tmp_path / "w.zarr")[:] == IN_MEMORY["minmax"](np.load(tmp_path / "y.npy"))).all()
    with pytest.raises(ValueError, match=r"group of arrays \(inner\)"):
        nf.stream.moments(tmp_path / "g.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(nf.stream.FileError):
        nf.stream.moments(tmp_path / "empty.zarr")


def test_parquet(tmp_path, rng):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    x = rng.standard_normal((5000, 3))
    x[7, 1] = np.nan
    table = {"a": x[:, 0], "b": pyarrow.array(x[:, 1], from_pandas=True), "n": np.arange(5000), "name": ["?"] * 5000}
    parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet", row_group_size=700)
    x[:, 2] = np.arange(5000)
    with pytest.raises(TypeError, match=r"no numbers, name \(string\): choose by columns"):
        nf.stream.moments(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="has no column q"):
        nf.stream.moments(tmp_path / "x.parquet", columns=["q"])
    done = nf.stream.transform(tmp_path / "x.parquet", tmp_path / "y.parquet", columns=["a", "b", "n"], check=True)
    y = parquet.read_table(tmp_path / "y.parquet")
    assert y.column_names == ["a", "b", "n"]
    expected = by_statistics(x, done.statistics, 0)
    assert np.array_equal(np.column_stack([column.to_numpy() for column in y.columns]), expected, equal_nan=True)
    nf.stream.transform(tmp_path / "y.parquet", tmp_path / "z.npy", columns=["n"], method="minmax", check=True)
    assert np.load(tmp_path / "z.npy").shape == (5000, 1)
    nf.stream.transform(tmp_path / "z.npy", tmp_path / "z.parquet", method="whiten", check=True)
    assert parquet.read_table(tmp_path / "z.parquet").column_names == ["c0"]


def test_arrays_with_slices(tmp_path, rng):
    x = rng.standard_normal((50, 60))
    before = x.copy()
    nf.stream.transform(x, tmp_path / "y.npy", check=True)
    assert (x == before).all()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    agree(nf.stream.moments(mapped, 1).mean, x.mean(1), "memory map", units=64, scale=float(np.abs(x).max()))


def test_arrays_that_follow_each_other(rng):
    x = rng.standard_normal((100, 4, 3)) + 50
    parts = [x[:30], x[30:31], x[31:31], x[31:]]
    for axis in (0, (0, 2), 1, (1, 2), None):
        m, (mean, m2) = nf.stream.moments(iter(parts), axis), wide(x, axis)
        assert m.count == nf.moments(x, axis).count
        agree(m.mean, mean, f"mean {axis}", units=8)
        agree(m.m2, m2, f"m2 {axis}", units=64)
    agree(nf.stream.covariance(part[:, 0] for part in parts).cov(), nf.covariance(x[:, 0]).cov(), "covariance", units=64)
    for wrong in ([x, x[:, 0]], [x, x[:, :2]], [], [1.0], [["a"]]):
        with pytest.raises((TypeError, ValueError)):
            nf.stream.moments(wrong, 0)


def test_laws(tmp_path, rng):
    """Large means, constants, extreme values and NaN, as in memory; blocks that lie far apart too."""
    x = rng.standard_normal((4000, 6))
    x[:, 0] += 1e8
    x[:, 1] = 0.1
    x[:, 2] *= 1e-170
    x[:, 3] *= 1e170
    x[:, 4] = np.repeat([-1e160, 1e160], 2000) + x[:, 4]
    x[::3, 5] = np.nan
    np.save(tmp_path / "x.npy", x)
    nf.stream.transform(tmp_path / "x.npy", tmp_path / "y.npy", check=True)
    y = np.load(tmp_path / "y.npy")
    exact = x.astype(np.longdouble)
    d = exact - np.nanmean(exact, axis=0)
    with np.errstate(invalid="ignore"):  # the constant
        expected = d / np.sqrt(np.nanmean(d * d, axis=0))
    for j in (0, 2, 3, 4):
        agree(y[:, j], expected[:, j], f"column {j}", units=4e8 if j == 0 else 64)
    assert not y[:, 1].any()
    assert (np.isnan(y[:, 5]) == np.isnan(x[:, 5])).all()
    agree(y[1::3, 5], expected[1::3, 5], "beside NaN", units=64)
    with pytest.raises(ValueError, match="NaN"):
        nf.stream.moments(tmp_path / "x.npy", 0, nan_policy="raise")
    assert np.isnan(nf.stream.moments(tmp_path / "x.npy", 0).mean[5])
    assert nf.stream.moments(tmp_path / "x.npy", 0, nan_policy="omit").count.tolist() == [4000] * 5 + [2666]


def test_estimators_merge_what_lies_far_apart():
    scaler = Standardizer().partial_fit(np.full((5, 1), -1e160)).partial_fit(np.full((5, 1), 1e160))
    agree(scaler.scale_, np.array([1e160]), "scale_")


def test_the_mean_is_rounded_as_often_as_the_tree_is_high(tmp_path, rng):
    for offset in (1e4, 1e8):
        x = offset + rng.standard_normal((200_000, 2))
        np.save(tmp_path / "x.npy", x)
        m, (mean, m2) = nf.stream.moments(tmp_path / "x.npy", 0), wide(x, 0)
        agree(m.mean, mean, "mean", units=3)
        agree(m.m2, m2, "m2", units=64 + offset / 100)  # the means of blocks, which are merged, are rounded


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_without_values(shape, tmp_path):
    np.save(tmp_path / "x.npy", np.empty(shape))
    assert nf.stream.moments(tmp_path / "x.npy", 0).mean.shape == shape[1:]
    for method in IN_MEMORY:
        nf.stream.transform(tmp_path / "x.npy", tmp_path / "y.npy", method=method, force=True, check=True)
        assert np.load(tmp_path / "y.npy").shape == shape


def test_many_columns(tmp_path, rng, monkeypatch):
    """More statistics than are kept: whole columns at a time, though their values lie apart."""
    monkeypatch.setattr("normfast.stream.grid.MANY", 100)
    x = rng.standard_normal((10, 3000))
    np.save(tmp_path / "x.npy", x)
    done = nf.stream.transform(tmp_path / "x.npy", tmp_path / "y.npy", check=True)
    assert done.statistics is None
    agree(np.load(tmp_path / "y.npy"), IN_MEMORY["standardize"](x), "columns", units=16)


@pytest.mark.parametrize(
    ("shape", "block", "order"), [((7, 5, 3), (2, 5, 3), (0, 1, 2)), ((7, 5), (3, 2), (1, 0)), ((), (), ()), ((4,), (4,), (0,))]
)
def test_blocks_cover_each_value_once(shape, block, order):
    seen, grid = np.zeros(shape, int), Grid(shape, block, order)
    for k in range(len(grid)):
        seen[grid[k]] += 1
    assert (seen == 1).all()
    assert len(grid) == math.prod(-(-n // step) for n, step in zip(shape, block, strict=True))


def test_blocks_are_read_in_one_piece(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((100, 200), np.float32))
    source = nf.stream.sources.open_source(tmp_path / "x.npy")
    assert grid_for(source, (0,)).block == (5, 200)
    assert grid_for(source, (1,)).whole
    source.close()
