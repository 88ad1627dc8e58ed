"""A user's program as mypy --strict sees it: `test_typing.py` checks it, nobody runs it. Lines marked `wrong:` must be reported."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import normfast as nf
from normfast import diagnostics, pruning
from normfast.layers import BatchNorm, Dense, Dropout, Layer, Parameter, Sequential
from normfast.preprocessing import MinMaxScaler, Standardizer, Whitener, minmax_scale, standardize, whiten
from normfast.typing import Array, ArrayLike, Float64Array

x: NDArray[np.float32] = np.ones((8, 4), np.float32)
weight: ArrayLike = [1.0, 2.0, 3.0, 4.0]


class Lent:
    """An array of another library."""

    def __dlpack__(self, *, stream: None = None) -> object: ...

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


# The trios.
assert_type(nf.layer_norm(x, weight, axis=(0, -1), eps=0, out=x), Array)
y, stats = nf.layer_norm_forward(x, None, weight, where=x > 0)
assert_type(stats, nf.NormStats)
assert_type(stats.rstd, Float64Array)
assert_type(stats.moments, nf.Moments)
print(stats.mean.shape, stats.count)
gradients = nf.layer_norm_backward(y, x, stats, weight)
assert_type(gradients, nf.NormGradients)
dx, dweight, dbias = gradients
assert_type(dx, Array)
assert_type(gradients.dweight, Array)
nf.layer_norm(Lent(), out=Lent())
nf.layer_norm([[1.0, 2.0]], axis=0)
assert_type(nf.rms_norm_forward(x, zero_centered=True), tuple[Array, nf.NormStats])
assert_type(nf.rms_norm_backward(y, x, stats).dweight, Array)
assert_type(nf.batch_norm(x, [0.0], np.ones(4), activation="relu"), Array)
assert_type(nf.batch_norm_forward(x, ord=np.inf, activation=(np.tanh, lambda da, z: da))[1], nf.NormStats)
assert_type(nf.group_norm_backward(y, x, stats, num_groups=2), nf.NormGradients)
assert_type(nf.instance_norm(x), Array)
assert_type(nf.lp_norm_forward(x, 1.5), tuple[Array, Float64Array])
assert_type(nf.mean_variance_norm_backward(y, x, stats), nf.InputGradient)
assert_type(nf.activation(x, "gelu"), Array)
assert_type(nf.update_running(np.zeros(4), np.ones(4), stats, momentum=None, num_batches=3), None)

# Dropout and what is fused with it.
dropped, mask = nf.dropout_forward(x, 0.1, rng=np.random.default_rng(0), axis=(0, 1))
assert_type(mask, nf.DropoutMask)
assert_type(mask.toarray(), NDArray[np.bool_])
assert_type(nf.dropout_backward(dropped, mask), Array)
assert_type(nf.dropout(x, rng=3, mask=mask), Array)
assert_type(nf.alpha_dropout(x, mask=x > 0), Array)
added = nf.dropout_add_layer_norm_forward(x, x, p=0.1, rng=0)
assert_type(added, nf.DropoutAddNorm)
assert_type(added.stats, nf.NormStats)
assert_type(nf.dropout_add_layer_norm_backward(y, added.h, added.stats, added.mask).dresidual, Array)
assert_type(nf.add_rms_norm_forward(x, x).h, Array)
assert_type(nf.bias_activation_dropout_backward(y, x, mask).dbias, Array)
assert_type(nf.sequence_mask((2, 3), lengths=[1, 2]), NDArray[np.bool_])

# Moments.
m = nf.moments(x, axis=0, nan_policy="omit", weights=[1.0] * 8) + nf.moments(x, axis=0)
assert_type(m, nf.Moments)
assert_type(m.mean, Float64Array)
assert_type(nf.Moments.merge([m, m]), nf.Moments)
assert_type(nf.Moments.from_bytes(m.to_bytes()), nf.Moments)
print(float(nf.moments(x).std()))
c = nf.covariance(x)
assert_type(c, nf.Covariance)
assert_type((c - c).cov(ddof=1), Float64Array)

# Settings.
with nf.use_engine("numpy"), nf.threads(2):
    assert_type(nf.get_num_threads(), int)
assert_type(nf.show_config("dicts"), dict[str, Any])
assert_type(nf.show_config(), None)

# Things with state.
model = Sequential(Dense(4, 8, norm="batch", activation="relu", dropout=0.1, rng=0), Dense(8, 2, norm=BatchNorm(2, axis=-1)), Dropout(0.5))
assert_type(model(x), Array)
assert_type(model.backward(x), Array)
assert_type(model.eval(), Sequential)
assert_type(model.parameters(), list[Parameter])
assert_type(model.state_dict(), dict[str, Array])
model.load_state_dict({name: array.tolist() for name, array in model.state_dict().items()})
for name, layer in model.named_modules():
    assert_type((name, layer), tuple[str, Layer])
assert_type(nf.layers.LayerNorm((3, 4))(x), Array)
assert_type(pruning.prune(model, share=0.5), Sequential)
assert_type(pruning.threshold(model, 0.5), float)
(shift,) = diagnostics.variance_shift(model, x, rng=0)
assert_type(shift, diagnostics.VarianceShift)
assert_type(diagnostics.saturation(model, x)[0].saturated, float)

# Estimators.
assert_type(standardize(x, axis=None), Array)
assert_type(minmax_scale(x, feature_range=(-1, 1)), Array)
assert_type(whiten(x, method="pca", shrinkage="oas"), Array)
assert_type(Standardizer(ddof=1).fit(x), Standardizer)
assert_type(Standardizer().partial_fit(x).transform(x), Array)
assert_type(MinMaxScaler((0, 2), clip=True).fit(x).data_min_, Float64Array)
assert_type(Whitener("zca", n_components=2).fit(x).covariance_, nf.Covariance)

# What must be reported.
nf.layer_norm(x, eps="a")  # wrong: arg-type
nf.layer_norm(x, axis=1.5)  # wrong: arg-type
nf.layer_norm(x, epsilon=1e-5)  # wrong: call-arg
nf.layer_norm()  # wrong: call-arg
nf.layer_norm(x, out=[1.0])  # wrong: arg-type
nf.layer_nrom(x)  # wrong: attr-defined
nf.activation(x, "rely")  # wrong: arg-type
nf.moments(x, nan_policy="skip")  # wrong: arg-type
nf.dropout_backward(x, x > 0)  # wrong: arg-type
nf.set_engine("fortran")  # wrong: arg-type
nf.set_num_threads("2")  # wrong: arg-type
nf.show_config("json")  # wrong: call-overload
print(stats.sigma)  # wrong: attr-defined
Whitener("lu")  # wrong: arg-type
Dense(4, 8, norm="instance")  # wrong: arg-type
model.load_state_dict([x])  # wrong: arg-type
