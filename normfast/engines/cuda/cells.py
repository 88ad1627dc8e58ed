"""The course of norms and moments whose statistics belong to cells: which sweeps take a block, and what lies between them."""

import numpy as np

from normfast.engines.cuda import channels, columns, slabs
from normfast.engines.cuda.places import aligned, ordered, source_of
from normfast.engines.cuda.primitives import KINDS
from normfast.engines.cuda.tiles import sum_tiles

DOUBLE = KINDS["float64"]


def sweeps_of(block):
    """The module whose sweeps take a block."""
    _, r, _, s = block
    return columns if s == 1 or (s < 32 and r >= 8) else slabs


def pieces_of(plan, sweeps, block):
    """Partial results of each cell."""
    return plan.pieces * (block[3] if sweeps is columns else 1)


def measure(caller, kind, block, together, centred, x, eps, mean, rstd, var, wide):
    """Statistics of the groups of `together` cells of a block."""
    sweeps = slabs if not centred else sweeps_of(block)
    plan = sweeps.plan_of(kind, block, wide)
    pieces = pieces_of(plan, sweeps, block)
    partial = [caller.scratch(block[0] * block[2] * pieces, np.float64) for _ in range(4)]
    sweeps.measure(kind, plan, block, centred, x, partial, caller.stream)
    channels.statistics(kind, block, together, pieces, centred, x, partial, eps, mean, rstd, var, caller.stream)


class Cells:
    """A block whose cells, `together` of them, share statistics, and whose parameters repeat after `channels` cells."""

    def __init__(self, caller, x, order, block, together, parameters, target):
        self.caller, self.kind, self.order, self.block = caller, KINDS[x.dtype], order, block
        self.cells, self.together, self.parameters = block[0] * block[2], together, parameters
        self.values = together * block[1] * block[3]
        self.x, self.place = source_of(caller, x, order, target), ordered(target, order)
        self.target = caller.dense_target(self.place)
        self.wide = aligned(self.x, self.target)
        self.sweeps = sweeps_of(block)
        self.plan = self.sweeps.plan_of(self.kind, block, self.wide)

    def factors(self, mean, rstd, weight, bias, *, given=False, eps=0.0):
        """The factors of the cells."""
        made = [self.caller.scratch(self.cells, self.kind.wide) for _ in range(5)]
        sizes = self.cells, self.together, self.parameters
        channels.make_factors(self.kind, given, *sizes, mean, rstd, eps, weight, bias, made, self.caller.stream)
        return made

    def normalize(self, made, code):
        """y from the factors."""
        arrays = self.x.flat(), made, self.target.flat()
        self.sweeps.normalize_runs(self.kind, self.plan, self.block, code, *arrays, self.caller.stream)
        self.caller.copy(self.target, self.place)

    def forward(self, weight, bias, eps, code, mean, rstd, var):
        """y and the statistics."""
        measure(self.caller, self.kind, self.block, self.together, True, self.x.flat(), eps, mean, rstd, var, self.wide)
        self.normalize(self.factors(mean, rstd, weight, bias), code)

    def backward(self, dy, mean, rstd, weight, bias, code, dweight, dbias, dtype):
        """dx, and dweight and dbias of that dtype, as runs."""
        caller, kind, stream = self.caller, self.kind, self.caller.stream
        wide = aligned(self.x, self.target, dy)
        plan = self.sweeps.plan_of(kind, self.block, wide)
        pieces = pieces_of(plan, self.sweeps, self.block)
        made, arrays = self.factors(mean, rstd, weight, bias), (dy.flat(), self.x.flat())
        partial = [caller.scratch(self.cells * pieces, np.float64) for _ in range(2)]
        self.sweeps.gradient_sums(kind, plan, self.block, code, *arrays, made, partial, stream)
        sums = [caller.scratch(self.cells, np.float64) for _ in range(2)]
        own = [caller.scratch(self.cells, kind.wide) for _ in range(3)]
        sizes = self.cells // self.together, self.together, self.parameters, self.values, pieces
        channels.make_gradient_factors(kind, *sizes, partial, mean, rstd, weight, sums, own, stream)
        self.sweeps.gradient(kind, plan, self.block, code, *arrays, made, own, self.target.flat(), stream)
        for share, total in zip(sums, (dbias, dweight), strict=True):
            sum_tiles(DOUBLE, share, self.cells // self.parameters, self.parameters, KINDS[dtype], total, stream)
        caller.copy(self.target, self.place)
