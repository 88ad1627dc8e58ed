"""What NumPy takes, every operation takes: lists, subclasses, pandas, tensors, DLPack alone; inputs are never written."""

import numpy as np
import pytest

import normfast as nf

CALLS = {
    "layer_norm": nf.layer_norm,
    "rms_norm": nf.rms_norm,
    "batch_norm_forward": lambda x: nf.batch_norm_forward(x)[0],
    "batch_norm where": lambda x: nf.batch_norm_forward(x, where=np.arange(4) > 0, activation="silu")[0],
    "group_norm": lambda x: nf.group_norm(x, 2),
    "instance_norm": nf.instance_norm,
    "mean_variance_norm": nf.mean_variance_norm,
    "lp_norm": lambda x: nf.lp_norm(x, 1.5),
    "dropout": lambda x: nf.dropout(x, 0.5, rng=0),
    "activation": lambda x: nf.activation(x, "gelu"),
    "moments": lambda x: nf.moments(x, 0, nan_policy="omit").m2,
    "covariance": lambda x: nf.covariance(x).m2,
}


class OnlyDLPack:
    """An array of another library that knows no `__array__`."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class OnlyArray:
    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self._array, dtype=dtype, copy=copy)


def containers(x):
    record = np.zeros(x.shape, [("pad", np.uint8), ("value", np.float64)])
    record["value"] = x
    unaligned = np.frombuffer(bytearray(x.nbytes + 1), np.uint8)[1:].view(np.float64).reshape(x.shape)
    unaligned[...] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    return {
        "list": x.tolist(),
        "tuple": tuple(map(tuple, x.tolist())),
        "array": OnlyArray(x),
        "dlpack": OnlyDLPack(x),
        "matrix": np.asmatrix(x),
        "memmap": x.copy().view(np.memmap),
        "field": record["value"],
        "unaligned": unaligned,
        "swapped": x.astype(">f8"),
        "read-only": read_only,
        "fortran": np.asfortranarray(x),
        "negative": x[::-1, ::-1].copy()[::-1, ::-1],
        "buffer": memoryview(x.copy()),
    }


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("name", CALLS)
def test_containers(name, rng):
    x = rng.standard_normal((6, 4))
    expected = CALLS[name](x.copy())
    for kind, container in containers(x).items():
        before = None if kind in ("dlpack", "array") else np.array(container)
        result = CALLS[name](container)
        assert type(result) is np.ndarray, kind
        assert np.abs(result - expected).max() < 1e-13, kind
        assert before is None or (np.array(container) == before).all()


@pytest.mark.parametrize("name", CALLS)
def test_pandas_and_torch(name, rng):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = rng.standard_normal((6, 4))
    expected = CALLS[name](x)
    for container in (pandas.DataFrame(x, columns=list("abcd")), torch.from_numpy(x.copy())):
        assert np.abs(CALLS[name](container) - expected).max() < 1e-13


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_plain_array_of_numbers(name, rng):
    x = rng.standard_normal((6, 4))
    for wrong, text in (
        (np.ma.masked_array(x, x > 0), "is a masked array"),
        (x.astype(object), "got dtype object"),
        (x.astype("U"), "got dtype <U"),
        (x.astype(complex), "complex128"),
        (np.zeros((6, 4), "M8[s]"), r"got dtype datetime64\[s\]"),
    ):
        with pytest.raises(TypeError, match=text):
            CALLS[name](wrong)
