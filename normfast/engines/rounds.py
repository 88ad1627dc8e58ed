"""Calls of very many values in rounds, between which Python looks at signals: Ctrl-C ends them within a second, whatever their size.

A round takes whole rows, samples or channels, so that results have the bits of a call in one piece. Sums over rows, dweight and dbias, are
added up round by round. Where a round ends depends on the shape alone. A call of one round costs a comparison more.
"""

from functools import wraps

import numpy as np

ROUND = 1 << 24  # values, a multiple of 32: 20 ms at the speed of memory, a third of a second in the slowest loop on one thread


def in_rounds(*cut, within=(), words=(), unit=None, result=None):
    """For a method of an engine: its arguments of these names, the first of which has the values, are cut along their first axis.

    within: those that are cut further inside where a block (a, r, c, s) is one sample: along r, or along c with all others if r is 1
    words: those that hold 32 values in one
    unit: the argument into whose lengths rounds are cut
    result: "sum" or "join" of what the rounds return; without it that is nothing

    Draws go on where the last round ended.
    """

    def decorate(method):
        names = method.__code__.co_varnames[: method.__code__.co_argcount]
        places, inner, packed = ([names.index(name) for name in some] for some in (cut, within, words))
        draws = [i for i, name in enumerate(names) if name in ("drawn", "position")]
        size = places[0]

        def rounds(arguments):
            x = arguments[size]
            axis = 0 if not inner or len(x) > 1 else 1 if x.shape[1] > 1 else 2
            values = x.size // x.shape[axis]
            step = steps(values, len(arguments[names.index(unit)]) if unit else 1)
            for lo in range(0, x.shape[axis], step):
                parts = list(arguments)
                own = slice(lo, lo + step)
                for place in places:
                    if axis == 0 or place in inner:
                        parts[place] = None if parts[place] is None else parts[place][(slice(None),) * axis + (own,)]
                    elif axis == 2:
                        parts[place] = parts[place][:, own]
                for place in packed:
                    parts[place] = parts[place][lo // 32 :]
                for place in draws:
                    parts[place] = further(parts[place], lo * values)
                yield (call if inner and axis == 0 else method)(*parts)  # a sample of more than a round is cut in turn

        @wraps(method)
        def call(*arguments):
            if arguments[size].size <= ROUND:
                return method(*arguments)
            return together(list(rounds(arguments)), result)

        return call

    return decorate


def steps(values, unit=1):
    """How many parts of so many values make a round, a multiple of `unit`."""
    return max(1, ROUND // (values * unit)) * unit


def further(drawn, values):
    """The draws, or their position alone, so many values further on."""
    if isinstance(drawn, tuple):
        key, position, *others = drawn
        return key, position + values, *others
    return None if drawn is None else drawn + values


def together(results, how):
    """What one call returns for what the rounds returned: an array, or several."""
    if how is None:
        return None
    if isinstance(results[0], (tuple, list)):
        return [together(values, how) for values in zip(*results, strict=True)]
    with np.errstate(all="ignore"):
        return sum(results[1:], start=results[0]) if how == "sum" else np.concatenate(results)


def by_channels(driver, x):
    """A driver of slabs for a block x (a, r, c, s), or one that calls it for some channels of a single large sample at a time.

    Its arrays of two axes that have a row for each run of x begin with the first of the round's first channel; those of one axis are cut.
    """
    a, r, c, s = x.shape
    if a > 1 or x.size <= ROUND:
        return driver

    def rounds(*arguments):
        step = steps(r * s)
        for lo in range(0, c, step):
            driver(*(channels(value, lo, lo + step, r, c) for value in arguments))

    return rounds


def channels(value, lo, hi, r, c):
    """What a driver gets for the channels lo..hi in place of an argument."""
    if not isinstance(value, np.ndarray) or (value.ndim == 2 and len(value) != r * c):
        return value
    if value.ndim == 2:
        return value[lo:hi] if r == 1 else value[lo:]
    each = value.size // c
    return value[lo * each : hi * each]
