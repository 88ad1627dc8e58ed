"""Wrong arguments: each wrong value for each parameter of each function; one line of TypeError or ValueError, nothing written."""

import inspect
import warnings

import numpy as np
import pytest

import normfast as nf

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
FORWARD = {
    "layer_norm": nf.layer_norm_forward(X),
    "rms_norm": nf.rms_norm_forward(X),
    "batch_norm": nf.batch_norm_forward(X),
    "group_norm": nf.group_norm_forward(X, 2),
    "instance_norm": nf.instance_norm_forward(X),
    "mean_variance_norm": nf.mean_variance_norm_forward(X, axis=1),
    "add_layer_norm": nf.add_layer_norm_forward(X, X)[1:],
    "add_rms_norm": nf.add_rms_norm_forward(X, X)[1:],
    "dropout_add_layer_norm": nf.dropout_add_layer_norm_forward(X, X, rng=0)[1:],
    "dropout_add_rms_norm": nf.dropout_add_rms_norm_forward(X, X, rng=0)[1:],
}
GOOD = {
    **dict.fromkeys(("x", "dy", "da", "z", "residual"), X), "bias": np.ones(4, np.float32), "num_groups": 2, "name": "relu", "p": 0.5,
    "mask": nf.dropout_forward(X, 0.5, rng=0)[1], "saved": nf.lp_norm_forward(X)[1], "shape": (6, 4), "lengths": [1, 2, 3, 0, 1, 2],
    "mean": np.zeros(4), "var": np.ones(4), "h": FORWARD["add_layer_norm"][0],
}  # fmt: skip
BAD = [
    "abc", "1", "nan", b"1", None, object(), [], {}, set(), (1, 2), [[1, 2], [3]], np.ones((2, 3)), np.ones((6, 4), complex),
    np.array(["a"]), np.array([0.1]), np.ma.masked_array(X), X.astype(object), X.astype("M8[s]"), np.nan, np.inf, -1, -0.5, 1.5, 7,
    3 + 4j, True, 10**400, 2**63, lambda x: x, np.float64, np.zeros(4, [("a", "f4")]), iter([1.0]),
]  # fmt: skip
FUNCTIONS = {
    name: function
    for name in nf.__all__
    if inspect.isfunction(function := getattr(nf, name)) and function.__module__.startswith("normfast.ops.")
}


def arguments(name):
    """Arguments with which the function works, those that are written to filled with 7."""
    family, parameters = name.removesuffix("_backward"), inspect.signature(FUNCTIONS[name]).parameters
    given = {key: GOOD.get(key) for key, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    given |= {key: np.full((6, 4), 7, np.float32) for key in parameters if key.endswith("out")}
    if "stats" in given:
        given["stats"] = FORWARD["batch_norm" if name == "update_running" else family][-1 if "dropout" not in family else 1]
    if "h" in given:
        given["h"] = FORWARD[family][0]
    if name.startswith("bias_activation"):
        given |= {"activation": "relu", "bias": GOOD["bias"]}
    if name == "mean_variance_norm_backward":
        given["axis"] = 1
    if name == "update_running":
        given |= {"running_mean": np.full(4, 7.0), "running_var": np.full(4, 7.0)}
    return given


@pytest.mark.parametrize("engine", ["auto", pytest.param("numpy", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_values(name, engine, tried):
    function, count = FUNCTIONS[name], 0
    with nf.use_engine(engine), warnings.catch_warnings():
        warnings.simplefilter("error")
        function(**arguments(name))
        for parameter in inspect.signature(function).parameters:
            for bad in BAD:
                given = arguments(name) | {parameter: bad}
                written = [value for key, value in given.items() if key.endswith("out") or key.startswith("running") if value is not bad]
                count += 1
                try:
                    function(**given)
                except (TypeError, ValueError) as error:
                    said = str(error)
                    assert said, f"{parameter}={bad!r}: an error that says nothing"
                    assert "\n" not in said, f"{parameter}={bad!r}: {said}"
                    assert all((array == 7).all() for array in written), f"{parameter}={bad!r}: written before the error"
                else:
                    taken = not isinstance(bad, (str, bytes)) or parameter in ("zero_centered", "num_batches")  # the second is not used
                    assert taken, f"{parameter}={bad!r} is taken"
    tried(count)


@pytest.mark.parametrize("change", ["mean", "var", "count", "one"])
def test_running_statistics_are_written_together_or_not_at_all(change):
    stats = FORWARD["batch_norm"][1]
    shapes = {"mean": ("mean", 3), "var": ("var", (2, 4)), "count": ("count", (2, 4)), "one": ("var", 1)}
    field, shape = shapes[change]
    mean, var = np.full(4, 7.0), np.full(4, 7.0)
    with pytest.raises(ValueError, match="shape"):
        nf.update_running(mean, var, stats._replace(**{field: np.full(shape, 6)}))
    assert (mean == 7).all()
    assert (var == 7).all()
