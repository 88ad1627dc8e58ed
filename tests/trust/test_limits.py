"""OMP_NUM_THREADS, quotas of containers, affinity and threadpoolctl say how many threads there are."""

import os

import pytest
from processes import digest, python

import normfast as nf
from normfast import engines
from normfast.engines import cores, threads

COUNT = "import normfast as nf; print(nf.get_num_threads())"


@pytest.fixture
def many(monkeypatch):
    """Eight cores, whatever the machine has, and no choice made before."""
    monkeypatch.setattr(threads, "_default", None)
    monkeypatch.setattr(threads, "_available", lambda: 8)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("3", 3), ("4,2", 4), (" 2 ", 2), ("", None), ("0", None), ("-1", None), ("many", None), ("²", None), ("9" * 30, None)],
)
def test_omp_num_threads(asked, expected):
    """The first of a list; what is no number of threads is as if it were not there (libgomp says so on stderr, once it is loaded)."""
    assert int(python(COUNT, OMP_NUM_THREADS=asked)) == (expected or cores.available())


def test_a_choice_goes_before_the_environment():
    code = "import normfast as nf; nf.set_num_threads(5); print(nf.get_num_threads())"
    assert python(code, OMP_NUM_THREADS="3") == "5"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_affinity():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + COUNT
    assert python(code, OMP_NUM_THREADS=None) == "1"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # in a container that sees its own group as the root
        ("0::/../../b\n", {"cpu.max": "200000 100000\n"}, 2),  # and in one of a namespace beside it
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, None),
        ("0::/a\n", {"a/cpu.max": "nonsense\n"}, None),
        ("0::/a\n", {"a/cpu.max": ""}, None),
        ("0::/a\n", {"a/cpu.max": "0 0\n"}, None),
        ("0::/a\n", {}, None),
        ("", {}, None),
        ("4:cpu,cpuacct:/d\n0::/\n", {"cpu,cpuacct/d/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/d/cpu.cfs_period_us": "100000\n"}, 2.5),
        ("4:cpuacct,cpu:/d\n", {"cpu/d/cpu.cfs_quota_us": "250000\n", "cpu/d/cpu.cfs_period_us": "50000\n"}, 5),  # a link of that name
        ("4:cpu:/d/e\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),  # a container, seen from inside
        ("4:cpu:/d\n", {"cpu/d/cpu.cfs_quota_us": "-1\n", "cpu/d/cpu.cfs_period_us": "100000\n"}, None),
        ("4:cpuset:/d\n", {"cpu/d/cpu.cfs_quota_us": "100000\n", "cpu/d/cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_quotas_of_control_groups(groups, files, expected, tmp_path):
    """Of version 2 and 1, in made-up folders."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert cores.quota(tmp_path) == (expected or float("inf"))


@pytest.mark.parametrize(("quota", "expected"), [(0.2, 1), (1.0, 1), (1.5, 2), (float("inf"), None)])
def test_a_quota_makes_whole_cores(quota, expected, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    monkeypatch.setattr(cores, "quota", lambda: quota)
    assert cores.available() == (expected or 6)


def test_where_there_are_no_control_groups(tmp_path):
    assert cores.quota(tmp_path) == float("inf")
    assert cores.available() >= 1


def test_threadpoolctl(many, tried):
    """Its limit holds as long as the block, for what there is by default: it raises no number, and takes back none that was asked for."""
    limits = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed here").threadpool_limits
    from normfast.engines.cython import threaded

    try:
        if not threaded():
            pytest.skip("the Cython engine was compiled without OpenMP")
    except ImportError as error:
        pytest.skip(f"the cython engine is not installed here: {error}")
    engines.load("cython")
    expected = digest("cython", 2)
    with limits(8):  # as OpenMP has it on eight cores
        for n in (1, 3):
            with limits(n):
                assert nf.get_num_threads() == n
                for asked in (1, 2, 20):
                    with nf.threads(asked):
                        assert nf.get_num_threads() == asked
                assert digest("cython", 2) == expected
            assert nf.get_num_threads() == 8
        with limits(12):
            assert nf.get_num_threads() == 8
    tried(3)
