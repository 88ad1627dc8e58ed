"""The norms and the dropout of ONNX as operators of `onnx.reference.ReferenceEvaluator`: attributes and inputs of ONNX, work of normfast.

Statistics are float64 whatever `stash_type` asks for, and a result of 16 bits is rounded once, after scale and bias.

>>> import numpy as np
>>> from normfast.onnx.operators import LpNormalization
>>> LpNormalization.eval(np.array([[3.0, 4.0], [0.0, 0.0]]), axis=-1, p=1)
array([[0.42857143, 0.57142857],
       [0.        , 0.        ]])
"""

import numpy as np
import onnx
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple
from onnx.reference.op_run import OpRun

import normfast as nf
from normfast.ops._arrays import computing


class Operator(OpRun):
    """What the operators share: attributes have the defaults of the model's opset, where the evaluator would take the newest ones."""

    op_domain = ""

    def __init__(self, onnx_node, run_params, schema=None):
        domain = onnx_node.domain
        schema = schema or onnx.defs.get_schema(onnx_node.op_type, run_params["opsets"][domain], domain)
        self.since_version = schema.since_version
        super().__init__(onnx_node, run_params, schema)


class BatchNormalization(Operator):
    """Of opset 14 and later in both modes; earlier ones, whose statistics for a backward pass are no longer specified, at inference."""

    def _run(self, x, scale, bias, mean, var, *, epsilon, momentum, training_mode=0, spatial=1, is_test=None, consumed_inputs=None):
        if self.since_version < 14 and (is_test == 0 or len(self.output) > 1):
            raise ValueError(f"BatchNormalization-{self.since_version} cannot train here: convert the model to opset 14 or later")
        shape = x.shape
        x = x.reshape(-1, 1) if x.ndim == 1 else x  # one channel
        if not training_mode:
            axes = 1 if spatial else tuple(range(1, x.ndim))
            return (nf.batch_norm(x, mean, var, scale, bias, axis=axes, eps=epsilon).reshape(shape),)
        y, stats = nf.batch_norm_forward(x, scale, bias, eps=epsilon)
        running = mean.astype(np.float64), var.astype(np.float64)
        nf.update_running(*running, stats, momentum=1 - momentum, ddof=0)
        return y.reshape(shape), *(values.astype(mean.dtype) for values in running)


def over_last_axes(forward, x, axis, eps, *parameters):
    """A norm over the axes from `axis` on; its statistics have length 1 there. Parameters broadcast to x, as ONNX has it."""
    first = normalize_axis_index(axis, x.ndim)
    axes, rank = tuple(range(first, x.ndim)), x.ndim - first
    parameters = [values for values in parameters if values is not None]
    if all(values.size == np.prod(values.shape[-rank:], dtype=int) for values in parameters):
        own = (np.broadcast_to(values.reshape(values.shape[-rank:]), x.shape[first:]) for values in parameters)
        y, stats = forward(x, *own, axis=axes, eps=eps)
    else:  # they differ from sample to sample
        y, stats = forward(x.astype(computing(x.dtype)), axis=axes, eps=eps)
        for combine, values in zip((np.multiply, np.add), parameters, strict=False):
            combine(y, values, out=y)
        y = y.astype(x.dtype)
    return y, [None if values is None else values.reshape(x.shape[:first] + (1,) * rank) for values in (stats.mean, stats.rstd)]


class LayerNormalization(Operator):
    """Since opset 17."""

    def _run(self, x, scale, bias=None, *, axis, epsilon, stash_type):
        stash = onnx.helper.tensor_dtype_to_np_dtype(stash_type)
        y, statistics = over_last_axes(nf.layer_norm_forward, x, axis, epsilon, scale, bias)
        return y, *(values.astype(stash) for values in statistics)


class RMSNormalization(Operator):
    """Since opset 23; the result has the type of scale."""

    def _run(self, x, scale, *, axis, epsilon, stash_type):
        wide = x if x.dtype == scale.dtype else x.astype(np.promote_types(computing(x.dtype), computing(scale.dtype)))
        return (over_last_axes(nf.rms_norm_forward, wide, axis, epsilon, scale)[0].astype(scale.dtype),)


class GroupNormalization(Operator):
    """Scale and bias have an entry for each channel, before opset 21 for each group."""

    def _run(self, x, scale, bias, *, num_groups, epsilon, stash_type=None):
        if self.since_version < 21:
            scale, bias = (np.repeat(values, x.shape[1] // num_groups) for values in (scale, bias))
        return (nf.group_norm(x, num_groups, scale, bias, eps=epsilon),)


class InstanceNormalization(Operator):
    """Of any opset."""

    def _run(self, x, scale, bias, *, epsilon, consumed_inputs=None):
        return (nf.instance_norm(x, scale, bias, eps=epsilon),)


class LpNormalization(Operator):
    """x / norm, and 0 where the norm is 0."""

    def _run(self, x, *, axis, p):
        return (nf.lp_norm(x, p, axis=axis, eps=0),)


class MeanVarianceNormalization(Operator):
    """(x - mean) / (std + 1e-9): the 1e-9 of ONNX's function stands outside of the root, that of `nf.mean_variance_norm` inside."""

    def _run(self, x, *, axes):
        axes = normalize_axis_tuple(axes, x.ndim)
        kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
        found = nf.moments(x, axis=axes)
        return (nf.batch_norm(x, found.mean, (found.std() + 1e-9) ** 2, axis=kept, eps=0),)


class Dropout(Operator):
    """With a seed, the mask of ONNX's reference evaluator, which is that of NumPy's legacy generator; else a mask of normfast's own.

    Before opset 12 the ratio is an attribute; before opset 7 training is what the attribute is_test denies, from then to 12 there is none.
    """

    def _run(self, x, ratio=0.5, training_mode=None, *, seed=None, is_test=None, consumed_inputs=None):
        training = is_test == 0 if training_mode is None else bool(training_mode)
        mask_dtype = x.dtype if self.since_version < 10 else bool
        if not training:
            return x.copy(), np.ones(x.shape, mask_dtype)
        p = 0.5 if ratio is None else float(np.asarray(ratio).item())
        keep = None if seed is None else np.random.RandomState(seed % 2**32).uniform(size=x.shape) >= p
        y, mask = nf.dropout_forward(x, p, mask=keep)
        return y, mask.toarray().astype(mask_dtype)


OPERATORS = [  # a list, as the evaluator's new_ops
    BatchNormalization,
    Dropout,
    GroupNormalization,
    InstanceNormalization,
    LayerNormalization,
    LpNormalization,
    MeanVarianceNormalization,
    RMSNormalization,
]
"""The norms and Dropout of ONNX, computed by normfast: the `new_ops` of ONNX's reference evaluator."""
