"""JAX, compiled by jit; backward is the compiled function that `jax.vjp` returns, with what it keeps. It always uses all threads."""

import jax
import jax.numpy as jnp
import numpy as np

from normfast.benchmarks import formulas
from normfast.benchmarks.formulas import EPS, LP_EPS, P
from normfast.benchmarks.rivals import Contender


def standardized(x, axes):
    return jax.nn.standardize(x, axes, epsilon=EPS)


def dropout(x, key):
    keep = jax.random.bernoulli(key, np.float32(1 - P), x.shape)
    return jnp.where(keep, x / (1 - P), 0)


def fused(case):
    """Dropout, sum and norm as a function of x, the residual stream, the parameters and a key: y, and h where it is used."""
    norm, dropped, used = forward(case.inner), case.op.startswith("dropout"), case.direction == "forward" or case.dh

    def operation(x, residual, *rest):
        h = residual + (dropout(x, rest[-1]) if dropped else x)
        y = norm(h, *(rest[:-1] if dropped else rest))
        return (y, h) if used else y

    return operation


def forward(case):
    """The operation as a function of x, weight, bias and, for dropout, a key."""
    if case.fused:
        return fused(case)

    def affine(xhat, weight, bias):
        return xhat * formulas.along(weight, case) + formulas.along(bias, case)

    def norm(x, weight, bias):
        groups = formulas.grouped(case, x)
        return affine(standardized(groups, formulas.reduced(case, groups.shape)).reshape(x.shape), weight, bias)

    def rms_norm(x, weight):
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPS) * weight

    def lp_norm(x):
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), LP_EPS)

    return {
        "rms_norm": rms_norm,
        "lp_norm": lp_norm,
        "dropout": dropout,
        "batch_norm_relu": lambda x, weight, bias: jax.nn.relu(norm(x, weight, bias)),
        "batch_norm_inference": lambda x, weight, bias, mean, var: affine(
            (x - formulas.along(mean, case)) * jax.lax.rsqrt(formulas.along(var, case) + EPS), weight, bias
        ),
        "moments": lambda x: (jnp.mean(x, axis=case.axis), jnp.var(x, axis=case.axis)),
        "standardize": lambda x: jax.nn.standardize(x, 0, epsilon=0),
    }.get(case.op, norm)


def contender(problem, threads):
    case = problem.case
    if case.threads is not None:
        return None
    jax.config.update("jax_enable_x64", True)
    names = {
        "rms_norm": ("weight",), "lp_norm": (), "dropout": (), "moments": (), "standardize": (),
        "batch_norm_inference": ("weight", "bias", "mean", "var"),
    }.get(case.inner.op, ("weight", "bias"))  # fmt: skip
    names = ("residual", *names) if case.fused else names
    operation = forward(case)
    arrays = [jax.device_put(getattr(problem, name)) for name in ("x", *names)]
    fixed = [jax.random.key(0)] if case.op.startswith("dropout") else []
    wait = jax.block_until_ready

    if case.direction == "forward":
        call = jax.jit(operation).lower(*arrays, *fixed).compile()
        return Contender(lambda: wait(call(*arrays, *fixed)), lambda y: as_arrays(y if isinstance(y, tuple) else (y,)))
    dy = jax.device_put((problem.dy, problem.dh) if case.dh else problem.dy)
    differentiated = jax.jit(lambda *inputs: jax.vjp(lambda *own: operation(*own, *fixed), *inputs))
    if case.direction == "backward":
        _, pull = differentiated(*arrays)
        call = jax.jit(lambda pull, dy: pull(dy))
        return Contender(lambda: wait(call(pull, dy)), as_arrays)

    @jax.jit
    def both(dy, *inputs):
        y, pull = jax.vjp(lambda *own: operation(*own, *fixed), *inputs)
        return y, *pull(dy)

    return Contender(lambda: wait(both(dy, *arrays)), as_arrays)


def as_arrays(results):
    return tuple(np.asarray(values) for values in results)
