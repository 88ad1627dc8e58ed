"""The bridge to Dask on its schedulers: threads, processes, and a cluster of two worker processes of which one is killed."""

import os
import signal
import time
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("dask.array", reason="Dask is not installed")
pytest.importorskip("distributed", reason="distributed is not installed")
import dask
import dask.array as da
from distributed import Client, LocalCluster

import normfast as nf
import normfast.dask as nfd
from normfast.preprocessing import MinMaxScaler, Standardizer, Whitener

WAIT = 60  # seconds after which a cluster is taken for hung


def results(lazy):
    """A result of each kind."""
    return {
        "moments": nfd.moments(lazy, axis=0),
        "covariance": nfd.covariance(lazy),
        "standardize": nfd.standardize(lazy),
        "minmax_scale": nfd.minmax_scale(lazy),
        "whiten": nfd.whiten(lazy),
        "layer_norm": nfd.layer_norm(lazy),
        "layer_norm along blocks": nfd.layer_norm(lazy, axis=0),
        "rms_norm": nfd.rms_norm(lazy, axis=0),
        "batch_norm": nfd.batch_norm_forward(lazy)[0],
        "dropout": nfd.dropout(lazy, rng=5),
    }


def bits(computed):
    """Of computed results."""
    return {name: value.tobytes() if isinstance(value, np.ndarray) else value.to_bytes() for name, value in computed.items()}


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(1e4, 3, (600, 12))


@pytest.fixture(scope="module")
def lazy(data):
    return da.from_array(data, chunks=(37, 5))


@pytest.fixture(scope="module")
def expected(lazy):
    """The bits by one thread."""
    return bits(dask.compute(results(lazy), scheduler="synchronous")[0])


@pytest.fixture(scope="module", autouse=True)
def same_environment():
    """Dask tells its workers by variables how many threads to use and how to allocate, and leaves them there for later processes."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="module")
def client():
    """Two worker processes, which their nannies start again when they die."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize(("scheduler", "workers"), [("threads", 1), ("threads", 2), ("threads", 5), ("processes", 2)])
def test_bits_on_each_scheduler(scheduler, workers, lazy, expected):
    assert bits(dask.compute(results(lazy), scheduler=scheduler, num_workers=workers)[0]) == expected


def test_bits_on_a_cluster(client, lazy, expected):
    assert bits(client.compute(results(lazy), sync=True)) == expected


def test_estimators_on_a_cluster(client, data, lazy):
    for make in (Standardizer, MinMaxScaler, Whitener):
        with dask.config.set(scheduler="synchronous"):
            alone = make().fit(lazy)
            y = alone.transform(lazy).compute()
        learned = make().fit(lazy)
        assert learned.transform(lazy).compute().tobytes() == y.tobytes()
        assert learned.transform(data).shape == data.shape


def slowly(x, folder):
    """x, lazily, each block after a tenth of a second and a note that it was read."""

    def read(block):
        import tempfile
        import time

        tempfile.mkstemp(dir=folder)
        time.sleep(0.1)
        return block

    return x.map_blocks(read, dtype=x.dtype, meta=x._meta)


@pytest.mark.parametrize("name", ["moments", "standardize", "dropout", "whiten"])
def test_a_worker_is_killed(name, client, lazy, expected, tmp_path):
    """While blocks are read and merged: another takes over, and not a bit is different."""
    client.wait_for_workers(2, timeout=WAIT)
    pids = client.run(os.getpid)
    future = client.compute(results(slowly(lazy, str(tmp_path)))[name])
    end = time.monotonic() + WAIT
    while len(list(tmp_path.iterdir())) < 20 and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    assert future.status == "pending"
    value = future.result(timeout=WAIT)
    assert bits({name: value})[name] == expected[name]
    client.wait_for_workers(2, timeout=WAIT)
    assert len(set(client.run(os.getpid).values()) - set(pids.values())) == 1


def test_threads_of_a_block(client):
    """A block has one thread, since Dask runs one block on each core already."""
    from normfast.dask.blocks import on_blocks

    assert client.submit(on_blocks(nf.get_num_threads)).result(timeout=WAIT) == 1
