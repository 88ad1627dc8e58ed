"""The way of most calls: aligned C-contiguous arrays, normalized along the last axis or by channel, are checked in C.

Parameters have x's type, or float32 beside 16-bit values. Whatever else comes gets None, and goes the long way through `normfast/ops`,
which copes with it or says what is wrong. Layer norm of 1 x 768 took 13.7 us the long way, ten times as long as its kernel.
"""

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cython cimport floating
from libc.math cimport sqrt
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from numpy cimport (
    NPY_DOUBLE, NPY_FLOAT, PyArray_CheckExact, PyArray_DATA, PyArray_DIM, PyArray_DIMS, PyArray_EMPTY, PyArray_ISCARRAY,
    PyArray_ISCARRAY_RO, PyArray_NBYTES, PyArray_NDIM, PyArray_SIZE, PyArray_TYPE, PyArray_ZEROS, import_array, ndarray, npy_intp,
)

from . cimport dropout as kernel, halves, layer_norm, residual

cdef extern from "numpy/arrayobject.h":
    int NPY_HALF, NPY_USERDEF

from normfast.engines.compiled import DOUBLE, SINGLE, constant
from normfast.engines.policy import row_tiles, takes_groups, takes_halves

import_array()


cdef enum:
    LINE = 32  # values of a line between two working spaces, or of two lines

cdef int bfloat16 = NPY_HALF  # the number of that type once it was seen; threads that see it first at once write the same one


cdef bint half(ndarray array):
    """Whether it has 16-bit values; bfloat16 is a type of the package ml_dtypes, known by its name."""
    global bfloat16
    cdef int kind = PyArray_TYPE(array)
    if kind >= NPY_USERDEF and kind != bfloat16 and (<object>array).dtype.name == "bfloat16":
        bfloat16 = kind
    return kind == NPY_HALF or kind == bfloat16


cdef inline bint plain(object array, int kind, int ndim):
    """Whether it is an aligned C-contiguous native array of this type and number of axes, both -1 for any."""
    return PyArray_CheckExact(array) and PyArray_ISCARRAY_RO(<ndarray>array) and (
        PyArray_TYPE(<ndarray>array) == kind if kind >= 0
        else PyArray_TYPE(<ndarray>array) == NPY_FLOAT or PyArray_TYPE(<ndarray>array) == NPY_DOUBLE or half(<ndarray>array)
    ) and (ndim < 0 or PyArray_NDIM(<ndarray>array) == ndim)


cdef inline bint apart(ndarray a, ndarray b):
    """Whether no byte belongs to both."""
    cdef const char* start = <const char*>PyArray_DATA(a)
    cdef const char* other = <const char*>PyArray_DATA(b)
    return start + PyArray_NBYTES(a) <= other or other + PyArray_NBYTES(b) <= start


cdef bint beside(object array, ndarray x):
    """Whether it is such an array of x's shape and type, to be read."""
    cdef int axis
    if not plain(array, PyArray_TYPE(x), PyArray_NDIM(x)):
        return False
    for axis in range(PyArray_NDIM(x)):
        if PyArray_DIM(<ndarray>array, axis) != PyArray_DIM(x, axis):
            return False
    return True


cdef bint takes(object out, ndarray x):
    """Whether `out` is such an array of x's shape and type, and x itself or apart from it; None will do."""
    if out is None:
        return True
    return beside(out, x) and PyArray_ISCARRAY(<ndarray>out) and (PyArray_DATA(<ndarray>out) == PyArray_DATA(x) or apart(<ndarray>out, x))


cdef bint fits(object run, int kind, Py_ssize_t n, object out):
    """Whether it is a run of n values apart from `out`."""
    return plain(run, kind, 1) and PyArray_DIM(<ndarray>run, 0) == n and (out is None or apart(<ndarray>run, <ndarray>out))


cdef inline double checked(object eps):
    """eps, or -1 where it is no float of 0 or more."""
    cdef double value = PyFloat_AS_DOUBLE(eps) if PyFloat_CheckExact(eps) else -1.0
    return value if 0.0 <= value < 1e308 else -1.0


cdef ndarray result(object out, ndarray x):
    return <ndarray>PyArray_EMPTY(PyArray_NDIM(x), PyArray_DIMS(x), PyArray_TYPE(x), 0) if out is None else <ndarray>out


cdef inline int computing(ndarray x):
    """The type that x's values are computed in, which its parameters have."""
    return NPY_DOUBLE if PyArray_TYPE(x) == NPY_DOUBLE else NPY_FLOAT


cdef inline bint suits(object values, ndarray x, Py_ssize_t n, object out):
    """Whether it is a parameter of n values, None or of x's type or the one that x is computed in, apart from `out`."""
    return values is None or fits(values, computing(x), n, out) or fits(values, PyArray_TYPE(x), n, out)


cdef ndarray widened(ndarray values):
    """A run of 16-bit values as float32."""
    cdef npy_intp n = PyArray_SIZE(values)
    cdef ndarray result = <ndarray>PyArray_EMPTY(1, &n, NPY_FLOAT, 0)
    cdef void* target = PyArray_DATA(result)
    halves.widen(<uint16_t*>PyArray_DATA(values), n, PyArray_TYPE(values) != NPY_HALF, <uint32_t*>target, <float*>target)
    return result


cdef ndarray run_of(object values, ndarray x, Py_ssize_t n, double default):
    """A parameter in the type that x is computed in, or n times its default."""
    if values is None:
        return constant(n, DOUBLE if computing(x) == NPY_DOUBLE else SINGLE, default)
    return widened(<ndarray>values) if half(<ndarray>values) else <ndarray>values


cdef void rows_of(floating like, ndarray x, ndarray weight, ndarray bias, Py_ssize_t n, double eps, bint centred, ndarray y, double* work):
    cdef Py_ssize_t rows = PyArray_SIZE(x) // n
    cdef floating* buffers[4]
    buffers[:] = [<floating*>PyArray_DATA(x), <floating*>PyArray_DATA(weight), <floating*>PyArray_DATA(bias), <floating*>PyArray_DATA(y)]
    with nogil:
        layer_norm.layer_norm_rows(
            buffers[0], buffers[1], buffers[2], n, eps, centred, buffers[3], work, work + rows, work + 2 * rows, 0, rows, False, NULL,
        )


def layer_norm_rows(x, weight, bias, axis, eps, bint centred, out, bint keep, Py_ssize_t serial, long_way):
    """y along the last axis, and where they are kept (3, ...) mean, rstd and var; `long_way` takes many values, on threads, and 16-bit ones."""
    cdef int kind, ndim
    cdef Py_ssize_t n, rows
    cdef double epsilon = checked(eps)
    if not plain(x, -1, -1) or epsilon < 0.0:
        return None
    ndim, kind = PyArray_NDIM(<ndarray>x), computing(<ndarray>x)
    if type(axis) is not int or ndim == 0 or (axis != -1 and axis != ndim - 1) or not PyArray_SIZE(<ndarray>x) or not takes(out, <ndarray>x):
        return None
    n = PyArray_DIM(<ndarray>x, ndim - 1)
    rows = PyArray_SIZE(<ndarray>x) // n
    if not suits(weight, x, n, out) or not suits(bias, x, n, out):
        return None
    cdef ndarray w = run_of(weight, x, n, 1.0), b = run_of(bias, x, n, 0.0), y = result(out, x), statistics
    cdef npy_intp shape[2]
    shape[0], shape[1] = 3, rows
    statistics = <ndarray>PyArray_EMPTY(2, shape, NPY_DOUBLE, 0)
    if PyArray_SIZE(<ndarray>x) >= serial or half(<ndarray>x):
        long_way(x.reshape(rows, n), w, b, epsilon, centred, (<object>y).reshape(rows, n), *statistics)
    elif kind == NPY_FLOAT:
        rows_of(<float>0, <ndarray>x, w, b, n, epsilon, centred, y, <double*>PyArray_DATA(statistics))
    else:
        rows_of(<double>0, <ndarray>x, w, b, n, epsilon, centred, y, <double*>PyArray_DATA(statistics))
    return (y, (<object>statistics).reshape((3, *x.shape[:ndim - 1]))) if keep else y


cdef void add_rows_of(
    floating like, ndarray x, ndarray other, ndarray weight, ndarray bias, Py_ssize_t n, double eps, bint centred, ndarray h, ndarray y,
    double* work
):
    cdef Py_ssize_t rows = PyArray_SIZE(x) // n
    cdef floating* buffers[6]
    buffers[0], buffers[1], buffers[2] = <floating*>PyArray_DATA(x), <floating*>PyArray_DATA(other), <floating*>PyArray_DATA(weight)
    buffers[3], buffers[4], buffers[5] = <floating*>PyArray_DATA(bias), <floating*>PyArray_DATA(h), <floating*>PyArray_DATA(y)
    with nogil:
        residual.add_norm_rows(
            buffers[0], buffers[1], False, NULL, 0, 0, like, NULL, NULL, NULL, buffers[2], buffers[3], n, eps, centred, buffers[4],
            buffers[5], work, work + rows, work + 2 * rows, 0, rows, False, NULL, NULL,
        )


def add_norm_rows(x, other, weight, bias, axis, eps, bint centred, out, h_out, draw, Py_ssize_t serial, long_way):
    """y, h, (3, ...) mean, rstd and var, and the mask that `draw` gives, if there is one, once all else is found to be simple."""
    cdef int ndim
    cdef Py_ssize_t n, rows
    cdef double epsilon = checked(eps)
    if not plain(x, -1, -1) or epsilon < 0.0 or not beside(other, <ndarray>x):
        return None
    ndim = PyArray_NDIM(<ndarray>x)
    if type(axis) is not int or ndim == 0 or (axis != -1 and axis != ndim - 1) or not PyArray_SIZE(<ndarray>x):
        return None
    for target in (out, h_out):
        if not takes(target, <ndarray>x) or not takes(target, <ndarray>other):
            return None
    if out is not None and h_out is not None and not apart(<ndarray>out, <ndarray>h_out):
        return None
    n = PyArray_DIM(<ndarray>x, ndim - 1)
    rows = PyArray_SIZE(<ndarray>x) // n
    for values in (weight, bias):
        if not suits(values, x, n, out) or not suits(values, x, n, h_out):
            return None
    cdef ndarray w = run_of(weight, x, n, 1.0), b = run_of(bias, x, n, 0.0), y = result(out, x), h = result(h_out, x), statistics
    cdef npy_intp shape[2]
    shape[0], shape[1] = 3, rows
    statistics = <ndarray>PyArray_EMPTY(2, shape, NPY_DOUBLE, 0)
    mask = None if draw is None else draw()
    drawn = None if mask is None else mask.stream()
    if drawn is not None or PyArray_SIZE(<ndarray>x) >= serial or half(<ndarray>x):
        block = rows, n
        targets = (<object>h).reshape(block), (<object>y).reshape(block)
        long_way(x.reshape(block), other.reshape(block), drawn, w, b, epsilon, centred, *targets, *statistics)
    elif PyArray_TYPE(<ndarray>x) == NPY_FLOAT:
        add_rows_of(<float>0, <ndarray>x, <ndarray>other, w, b, n, epsilon, centred, h, y, <double*>PyArray_DATA(statistics))
    else:
        add_rows_of(<double>0, <ndarray>x, <ndarray>other, w, b, n, epsilon, centred, h, y, <double*>PyArray_DATA(statistics))
    return y, h, (<object>statistics).reshape((3, *x.shape[:ndim - 1])), mask


cdef Py_ssize_t plain_rows(dy, x, mean, rstd, weight, axis, bint centred, out):
    """The rows of x along the last axis; 0 where something about them, their statistics or `out` is not simple. mean None is 0."""
    cdef int ndim
    cdef Py_ssize_t n, rows
    if not plain(x, -1, -1) or type(axis) is not int:
        return 0
    ndim = PyArray_NDIM(<ndarray>x)
    if ndim == 0 or (axis != -1 and axis != ndim - 1) or not PyArray_SIZE(<ndarray>x) or not takes(out, <ndarray>x) or not takes(dy, <ndarray>x):
        return 0
    n = PyArray_DIM(<ndarray>x, ndim - 1)
    rows = PyArray_SIZE(<ndarray>x) // n
    if (n == 1 or mean is None) and centred or not suits(weight, x, n, out):
        return 0
    for values in (dy, x, rstd, rstd if mean is None else mean):
        if not plain(values, -1, -1) or not (out is None or apart(<ndarray>values, <ndarray>out)):
            return 0
    for values in (rstd, rstd if mean is None else mean):
        if not plain(values, NPY_DOUBLE, ndim - 1) or PyArray_SIZE(<ndarray>values) != rows:
            return 0
    return rows


cdef void gradient_rows_of(
    floating like, ndarray dy, ndarray x, ndarray mean, ndarray rstd, ndarray weight, Py_ssize_t n, bint centred, ndarray dx, ndarray short,
    ndarray total
):
    """`short` and `total`, of 0 in x's type and in float64, have a row each for the sums of weight and bias."""
    cdef Py_ssize_t rows = PyArray_SIZE(x) // n, beside = PyArray_DIM(short, 1)
    cdef floating* buffers[5]
    buffers[0], buffers[1], buffers[2] = <floating*>PyArray_DATA(dy), <floating*>PyArray_DATA(x), <floating*>PyArray_DATA(weight)
    buffers[3], buffers[4] = <floating*>PyArray_DATA(dx), <floating*>PyArray_DATA(short)
    cdef double* sums = <double*>PyArray_DATA(total)
    with nogil:
        layer_norm.layer_norm_gradient_rows(
            buffers[0], buffers[1], <double*>PyArray_DATA(mean), <double*>PyArray_DATA(rstd), buffers[2], n, centred, buffers[3], 0, rows,
            buffers[4], buffers[4] + beside, sums, sums + n, False, NULL,
        )


def layer_norm_gradients(dy, x, mean, rstd, weight, axis, bint centred, out, Py_ssize_t serial, long_way):
    """dx, dweight and dbias of rows along the last axis; mean None is 0; `long_way` takes many values, on threads, and 16-bit ones."""
    cdef Py_ssize_t rows = plain_rows(dy, x, mean, rstd, weight, axis, centred, out), n
    if not rows:
        return None
    cdef npy_intp sets[2]
    sets[0], sets[1] = 2, PyArray_SIZE(<ndarray>x) // rows
    cdef ndarray dx = result(out, x), w = run_of(weight, x, sets[1], 1.0), start = constant(rows, DOUBLE, 0.0) if mean is None else mean
    cdef ndarray short, total
    if PyArray_SIZE(<ndarray>x) >= serial or half(<ndarray>x) or row_tiles(rows, sets[1]) > 1:
        block = rows, sets[1]
        dweight, dbias = long_way(
            dy.reshape(block), x.reshape(block), (<object>start).ravel(), rstd.ravel(), w, centred, (<object>dx).reshape(block)
        )
    else:
        total = <ndarray>PyArray_ZEROS(2, sets, NPY_DOUBLE, 0)
        n, sets[1] = sets[1], sets[1] + LINE - sets[1] % LINE  # where two rows touch, C's test that they lie apart fails, and sums have other bits
        short = <ndarray>PyArray_ZEROS(2, sets, computing(<ndarray>x), 0)
        if PyArray_TYPE(<ndarray>x) == NPY_FLOAT:
            gradient_rows_of(<float>0, <ndarray>dy, <ndarray>x, start, <ndarray>rstd, w, n, centred, dx, short, total)
        else:
            gradient_rows_of(<double>0, <ndarray>dy, <ndarray>x, start, <ndarray>rstd, w, n, centred, dx, short, total)
        dweight, dbias = total
    dtype = x.dtype if weight is None else weight.dtype
    return dx, dweight.astype(dtype), dbias.astype(dtype)


def add_norm_gradients(dy, h, dh, mean, rstd, drawn, weight, axis, bint centred, out, more_out, long_way):
    """dx, None where nothing is `drawn`, dresidual, dweight and dbias, in the same way."""
    cdef Py_ssize_t rows = plain_rows(dy, h, mean, rstd, weight, axis, centred, more_out), n
    if not rows or (dh is not None and (not beside(dh, <ndarray>h) or not takes(more_out, <ndarray>dh))):
        return None
    if drawn is None:
        out = None
    elif not plain_rows(dy, h, mean, rstd, weight, axis, centred, out) or (dh is not None and not takes(out, <ndarray>dh)):
        return None
    elif out is not None and more_out is not None and not apart(<ndarray>out, <ndarray>more_out):
        return None
    n = PyArray_SIZE(<ndarray>h) // rows
    cdef ndarray dresidual = result(more_out, h)
    dx = None if drawn is None else result(out, h)
    block = rows, n
    start = constant(rows, DOUBLE, 0.0) if mean is None else mean.ravel()
    sources = dy.reshape(block), h.reshape(block), None if dh is None else dh.reshape(block)
    targets = (<object>dresidual).reshape(block), None if dx is None else dx.reshape(block)
    dweight, dbias = long_way(*sources, start, rstd.ravel(), drawn, run_of(weight, h, n, 1.0), centred, *targets)
    dtype = h.dtype if weight is None else weight.dtype
    return dx, dresidual, dweight.astype(dtype), dbias.astype(dtype)


cdef drop(floating like, ndarray x, ndarray key, position, threshold, scale, ndarray y):
    cdef uint32_t words[1168]  # 4096 bytes of draws, 512 of bits and 64
    cdef uint64_t* own = <uint64_t*>PyArray_DATA(key)
    cdef floating* source = <floating*>PyArray_DATA(x)
    cdef floating* target = <floating*>PyArray_DATA(y)
    cdef Py_ssize_t n = PyArray_SIZE(x), start = position
    cdef uint32_t below = threshold
    cdef floating factor = scale
    with nogil:
        kernel.dropout_run(source, n, own, start, below, factor, words, <uint8_t*>words, target, False, NULL)


def dropout(x, draw, out, Py_ssize_t serial, long_way):
    """y and the mask that `draw` gives once all else is found to be simple;"""
    if not plain(x, -1, -1) or not PyArray_SIZE(<ndarray>x) or not takes(out, <ndarray>x):
        return None
    mask = draw()
    key, position, threshold, scale = mask.stream()
    cdef ndarray y = result(out, x)
    if PyArray_SIZE(<ndarray>x) >= serial or half(<ndarray>x):
        long_way(x.reshape(-1), key, position, threshold, scale, (<object>y).reshape(-1))
    elif PyArray_TYPE(<ndarray>x) == NPY_FLOAT:
        drop(<float>0, <ndarray>x, <ndarray>key, position, threshold, scale, y)
    else:
        drop(<double>0, <ndarray>x, <ndarray>key, position, threshold, scale, y)
    return y, mask


cdef bint spread(object values, Py_ssize_t n, object out, double* target):
    """The values of a parameter as n doubles; False where it is no plain run of n values apart from `out`."""
    cdef Py_ssize_t j
    cdef const float* source
    if not fits(values, -1, n, out):
        return False
    if half(<ndarray>values):
        values = widened(<ndarray>values)
    if PyArray_TYPE(<ndarray>values) == NPY_DOUBLE:
        memcpy(target, PyArray_DATA(<ndarray>values), n * sizeof(double))
    else:
        source = <const float*>PyArray_DATA(<ndarray>values)
        for j in range(n):
            target[j] = source[j]
    return True


def batch_norm(x, mean, var, weight, bias, axis, eps, int code, out, long_way):
    """y by given statistics of the channels along axis 1 or the last, by the engine's method `long_way`."""
    cdef int ndim
    cdef Py_ssize_t c, s = 1, r, j, size
    cdef double epsilon = checked(eps)
    if not plain(x, -1, -1) or epsilon < 0.0 or type(axis) is not int:
        return None
    ndim, size = PyArray_NDIM(<ndarray>x), PyArray_SIZE(<ndarray>x)
    if ndim < 2 or size == 0 or (axis != 1 and axis != -1 and axis != ndim - 1) or not takes(out, <ndarray>x):
        return None
    c = PyArray_DIM(<ndarray>x, 1 if axis == 1 else ndim - 1)
    for j in range(2, ndim if axis == 1 else 0):
        s *= PyArray_DIM(<ndarray>x, j)
    r = size // (c * s)
    if half(<ndarray>x) and not takes_halves(s):
        return None
    cdef npy_intp shape[3]
    shape[0], shape[1], shape[2] = 4, 1, c
    cdef ndarray factors_ = <ndarray>PyArray_EMPTY(3, shape, NPY_DOUBLE, 0)
    cdef double* f = <double*>PyArray_DATA(factors_)
    if not spread(mean, c, out, f) or not spread(var, c, out, f + c):
        return None
    if not spread(constant(c, DOUBLE, 1.0) if weight is None else weight, c, out, f + 2 * c):
        return None
    if not spread(constant(c, DOUBLE, 0.0) if bias is None else bias, c, out, f + 3 * c):
        return None
    for j in range(c, 2 * c):
        if not f[j] + epsilon > 0.0:  # constant, negative or NaN
            return None
    for j in range(c, 2 * c):  # apart, so that it vectorizes
        f[j] = 1.0 / sqrt(f[j] + epsilon)
    y = result(out, x)
    long_way(x.reshape(1, r, c, s), *factors_, code, y.reshape(1, r, c, s))
    return y


cdef Py_ssize_t plain_groups(object x, object groups, object axis, object out):
    """The values of a channel of a sample of x (samples, channels, ...); 0 where something about them is not simple."""
    cdef Py_ssize_t s = 1
    cdef int j
    if not plain(x, -1, -1) or type(axis) is not int or axis != 1 or type(groups) is not int or not PyArray_SIZE(<ndarray>x):
        return 0
    if PyArray_NDIM(<ndarray>x) < 3 or not 0 < groups <= PyArray_DIM(<ndarray>x, 1) or not takes(out, <ndarray>x):
        return 0
    for j in range(2, PyArray_NDIM(<ndarray>x)):
        s *= PyArray_DIM(<ndarray>x, j)
    if PyArray_DIM(<ndarray>x, 1) % <Py_ssize_t>groups or not takes_groups(PyArray_SIZE(<ndarray>x) // s, s):
        return 0
    return s if not half(<ndarray>x) or takes_halves(s) else 0


def group_norm(x, groups, weight, bias, axis, eps, out, long_way):
    """y, (3, samples, groups) mean, rstd and var and how many values each has, by the engine's method `long_way`."""
    cdef Py_ssize_t s = plain_groups(x, groups, axis, out), channels
    cdef double epsilon = checked(eps)
    if not s or epsilon < 0.0:
        return None
    channels = PyArray_DIM(<ndarray>x, 1)
    cdef npy_intp shape[3]
    shape[0], shape[1], shape[2] = 2, groups, channels // <Py_ssize_t>groups
    cdef ndarray parameters = <ndarray>PyArray_EMPTY(3, shape, NPY_DOUBLE, 0), statistics
    cdef double* values = <double*>PyArray_DATA(parameters)
    if not spread(constant(channels, DOUBLE, 1.0) if weight is None else weight, channels, out, values):
        return None
    if not spread(constant(channels, DOUBLE, 0.0) if bias is None else bias, channels, out, values + channels):
        return None
    count = s * shape[2]
    shape[0], shape[1], shape[2] = 3, PyArray_DIM(<ndarray>x, 0), groups
    statistics = <ndarray>PyArray_EMPTY(3, shape, NPY_DOUBLE, 0)
    y = result(out, x)
    rows = shape[1] * shape[2], count
    runs = (<object>statistics).reshape(3, rows[0])
    long_way(x.reshape(rows), *parameters, s, epsilon, y.reshape(rows), *runs)
    return y, statistics, count


def group_norm_gradients(dy, x, mean, rstd, groups, weight, axis, out, long_way):
    """dx, dweight and dbias, in the same way."""
    cdef Py_ssize_t s = plain_groups(x, groups, axis, out), channels, samples
    if not s or not beside(dy, <ndarray>x) or not takes(out, <ndarray>dy):
        return None
    samples, channels = PyArray_DIM(<ndarray>x, 0), PyArray_DIM(<ndarray>x, 1)
    for values in (mean, rstd):
        if not plain(values, NPY_DOUBLE, 2) or PyArray_DIM(<ndarray>values, 0) != samples or PyArray_DIM(<ndarray>values, 1) != groups:
            return None
        if out is not None and not apart(<ndarray>values, <ndarray>out):
            return None
    cdef npy_intp shape[2]
    shape[0], shape[1] = groups, channels // <Py_ssize_t>groups
    cdef ndarray factors = <ndarray>PyArray_EMPTY(2, shape, NPY_DOUBLE, 0)
    if not spread(constant(channels, DOUBLE, 1.0) if weight is None else weight, channels, out, <double*>PyArray_DATA(factors)):
        return None
    rows = samples * shape[0], shape[1] * s
    dx = result(out, x)
    sums = long_way(dy.reshape(rows), x.reshape(rows), mean.ravel(), rstd.ravel(), factors, s, dx.reshape(rows))
    dtype = weight.dtype if weight is not None and half(<ndarray>x) else x.dtype
    dweight, dbias = [values.reshape(samples, channels).sum(axis=0).astype(dtype) for values in sums]
    return dx, dweight, dbias
