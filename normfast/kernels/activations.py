"""The non-linear functions of a neuron and their derivatives, on runs; all but relu are computed in float64.

The forms are those that neither cancel nor overflow: erfc in place of 1 + erf, exp(-|z|) in place of exp(z). exp, log1p and erfc are
written out as polynomials, since a loop that makes calls does not vectorize (gelu of 786,432 values on one core: 3.2 ms, with calls 16.6).
"""

from normfast.kernels.primitives import *

IDENTITY = 0
RELU = 1
LEAKY_RELU = 2
SIGMOID = 3
TANH = 4
GELU = 5
SILU = 6
SOFTPLUS = 7
SLOPE = 0.01  # of leaky relu below zero, PyTorch's default


def activate(z, n, code, a):
    """a = f(z), on runs in the first cache: a copies z first, so that what follows has one array and vectorizes also where a is z."""
    for j in range(n):
        a[j] = z[j]
    if code == RELU:
        for j in range(n):
            a[j] = cast(0.0, a[j]) if a[j] < 0.0 else a[j]
    elif code == LEAKY_RELU:
        slope = cast(SLOPE, a[0])
        for j in range(n):
            a[j] = a[j] * slope if a[j] < 0.0 else a[j]
    elif code == SIGMOID:
        for j in range(n):
            a[j] = sigmoid(1.0 * a[j])
    elif code == TANH:
        for j in range(n):
            e = exp_less_1(-2.0 * abs(1.0 * a[j]))
            a[j] = (e if a[j] < 0.0 else 0.0 - e) / (2.0 + e)
    elif code == GELU:
        for j in range(n):
            a[j] = a[j] * normal_cdf(1.0 * a[j], exponential(-0.5 * a[j] * a[j]))
    elif code == SILU:
        for j in range(n):
            a[j] = a[j] * sigmoid(1.0 * a[j])
    elif code == SOFTPLUS:
        for j in range(n):
            a[j] = (a[j] if a[j] > 0.0 else 0.0) + log_1_plus(exponential(-abs(1.0 * a[j])))


def activate_gradient(da, z, n, code, dz):
    """dz = da * f'(z); dz may be z."""
    for j in range(n):
        dz[j] = z[j]
    if code == RELU:
        for j in range(n):
            dz[j] = da[j] if dz[j] > 0.0 else cast(0.0, dz[j])
    elif code == LEAKY_RELU:
        slope = cast(SLOPE, dz[0])
        for j in range(n):
            dz[j] = da[j] if dz[j] > 0.0 else da[j] * slope
    elif code == SIGMOID:
        for j in range(n):
            dz[j] = da[j] * bell(1.0 * dz[j])
    elif code == TANH:
        for j in range(n):
            dz[j] = da[j] * 4.0 * bell(2.0 * dz[j])
    elif code == GELU:
        for j in range(n):
            e = exponential(-0.5 * dz[j] * dz[j])
            dz[j] = da[j] * (normal_cdf(1.0 * dz[j], e) + dz[j] * (0.3989422804014327 * e))
    elif code == SILU:
        for j in range(n):
            dz[j] = da[j] * (sigmoid(1.0 * dz[j]) + dz[j] * bell(1.0 * dz[j]))
    elif code == SOFTPLUS:
        for j in range(n):
            dz[j] = da[j] * sigmoid(1.0 * dz[j])


def sigmoid(z):
    """1 / (1 + exp(-z))."""
    e = exponential(-abs(z))
    return (1.0 if z >= 0.0 else e) / (1.0 + e)


def bell(z):
    """The derivative of the sigmoid, sigmoid(z) * (1 - sigmoid(z))."""
    e = exponential(-abs(z))
    return e / ((1.0 + e) * (1.0 + e))


def normal_cdf(z, e):
    """erfc(-z / sqrt(2)) / 2 for e = exp(-z**2 / 2)."""
    tail = 0.5 * e * scaled_erfc(0.7071067811865476 * abs(z))
    return tail if z < 0.0 else 1.0 - tail


def exponential(x):
    """exp(x) for x <= 0, where it is not subnormal, else 0."""
    t = x * 1.4426950408889634 + 6755399441055744.0  # x / ln 2 rounded to a whole number, which now stands in the last bits
    scale = power_of_two(t)
    return 0.0 if x < -708.0 else scale + scale * series(remainder(x, t))


def exp_less_1(x):
    """exp(x) - 1 for x <= 0."""
    x = -708.0 if x < -708.0 else x
    t = x * 1.4426950408889634 + 6755399441055744.0
    scale = power_of_two(t)
    return scale * series(remainder(x, t)) + (scale - 1.0)


def remainder(x, t):
    """x - k * ln 2 for t = k + 1.5 * 2**52; the upper part of ln 2 has 32 bits, so that k times it is exact."""
    k = t - 6755399441055744.0
    return (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10


def series(r):
    """exp(r) - 1 for |r| <= ln 2 / 2: Taylor's series."""
    q = 1.6059043836821613e-10
    q = ((q * r + 2.08767569878681e-09) * r + 2.505210838544172e-08) * r + 2.755731922398589e-07
    q = ((q * r + 2.7557319223985893e-06) * r + 2.48015873015873e-05) * r + 0.0001984126984126984
    q = ((q * r + 0.001388888888888889) * r + 0.008333333333333333) * r + 0.041666666666666664
    q = ((q * r + 0.16666666666666666) * r + 0.5) * r + 1.0
    return q * r


def log_1_plus(e):
    """log(1 + e) for 0 <= e <= 1: twice the series of artanh at e / (2 + e)."""
    s = e / (2.0 + e)
    r = s * s
    q = 0.02857142857142857
    q = ((q * r + 0.030303030303030304) * r + 0.03225806451612903) * r + 0.034482758620689655
    q = ((q * r + 0.037037037037037035) * r + 0.04) * r + 0.043478260869565216
    q = ((q * r + 0.047619047619047616) * r + 0.05263157894736842) * r + 0.058823529411764705
    q = ((q * r + 0.06666666666666667) * r + 0.07692307692307693) * r + 0.09090909090909091
    q = ((q * r + 0.1111111111111111) * r + 0.14285714285714285) * r + 0.2
    q = q * r + 0.3333333333333333
    return 2.0 * (s + s * r * q)


def scaled_erfc(x):
    """exp(x**2) * erfc(x) for x >= 0, to 4e-16: Chebyshev's interpolation at 24 points in t = 3 / (3 + x), over t."""
    t = 3.0 / (3.0 + x)
    u = 2.0 * t - 1.0
    q = -2.8159509281076503e-10
    q = ((q * u + 3.719707966416795e-12) * u + 2.9626149638389826e-09) * u + -1.1971203723870318e-09
    q = ((q * u + -1.7222715872994848e-08) * u + 1.667106728097079e-08) * u + 7.818223334208088e-08
    q = ((q * u + -1.3725325306312533e-07) * u + -3.3314597870270045e-07) * u + 9.226037418424269e-07
    q = ((q * u + 1.5831303440440469e-06) * u + -5.823868584100777e-06) * u + -1.0132730174040267e-05
    q = ((q * u + 3.585392750000691e-05) * u + 9.225928273365532e-05) * u + -0.00018276991508258444
    q = ((q * u + -0.0010113540003986608) * u + -0.0004041388738382599) * u + 0.008942411541493538
    q = ((q * u + 0.03984258709565953) * u + 0.1034890873001889) * u + 0.1967427857013695
    q = (q * u + 0.2944648177232945) * u + 0.3580023023627799
    return t * q
