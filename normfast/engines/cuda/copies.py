"""Copies on the device: between arrays of any strides, and from one dtype to another."""

from functools import cache

from numba import cuda

from normfast.engines.cuda.primitives import KINDS, launch, loader, storer

THREADS = 256
BLOCKS = 1 << 16  # of a launch at most


@cuda.jit
def copy_kernel(source, source_at, source_steps, target, target_at, target_steps, sizes):
    """target = source, element by element in the C order of `sizes`; steps in elements, the first element at source_at and target_at."""
    n = 1
    for size in sizes:
        n *= size
    i = cuda.grid(1)
    while i < n:
        left, here, there = i, source_at, target_at
        for axis in range(len(sizes) - 1, 0, -1):
            j = left % sizes[axis]
            here += j * source_steps[axis]
            there += j * target_steps[axis]
            left //= sizes[axis]
        target[there + left * target_steps[0]] = source[here + left * source_steps[0]]
        i += cuda.gridsize(1)


def copy(source, target, stream):
    """Copy the values of a DeviceArray to another of the same shape and dtype, which do not overlap."""
    n = source.size
    if n:
        sizes, steps = joined(source.shape, source.strides, target.strides)
        arguments = []
        for array, own in zip((source, target), steps, strict=True):
            run, at = array.run()
            arguments += [run, at, tuple(step // array.itemsize for step in own)]
        launch(copy_kernel, min(-(-n // THREADS), BLOCKS), THREADS, stream, *arguments, tuple(sizes))


def joined(shape, *strides):
    """The shape and the strides of arrays of it, with axes that lie one after the other in all of them taken as one."""
    sizes, steps = [], []
    for axis, size in enumerate(shape):
        following = [own[axis] for own in strides]
        if sizes and [size * step for step in following] == steps[-1]:
            sizes[-1] *= size
            steps[-1] = following
        elif size > 1:
            sizes.append(size)
            steps.append(following)
    if not sizes:
        return [1], [[0] for _ in strides]
    return sizes, list(zip(*steps, strict=True))


@cache
def cast_kernel(source, target, more):
    """Values of one kind rounded to another, and 1 more where `more` is true."""
    load, store, held_as, given_as = loader(source, 1), storer(target, 1), source.wide, target.wide

    @cuda.jit
    def kernel(x, y, n):
        held = cuda.local.array(1, held_as)
        given = cuda.local.array(1, given_as)
        i = cuda.grid(1)
        while i < n:
            load(x, i, held, 0)
            given[0] = given_as(held[0]) + given_as(1) if more else given_as(held[0])
            store(given, 0, y, i)
            i += cuda.gridsize(1)

    return kernel


def cast(source, target, stream, more=False):
    """Fill a DeviceArray with the values of another of its shape, both in C order, rounded to its dtype; 1 more where `more` is true."""
    n = source.size
    if n:
        kernel = cast_kernel(KINDS[source.dtype], KINDS[target.dtype], more)
        launch(kernel, min(-(-n // THREADS), BLOCKS), THREADS, stream, source.flat(), target.flat(), n)
