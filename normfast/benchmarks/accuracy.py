"""Errors beside those of other libraries, as data move away from 0: `python -m normfast.benchmarks.accuracy`.

float32 values of standard deviation 1 around a growing mean. Each error is the largest one over all results (y, or dx, dweight and dbias,
or mean and variance), relative to the largest exact value, by formulas in float64. The libraries are those of `normfast bench`.
"""

import argparse
from dataclasses import replace

import numpy as np

import normfast as nf
from normfast.benchmarks.cases import both_ways
from normfast.benchmarks.problems import Problem
from normfast.benchmarks.rivals import OURS, RIVALS, build, installed

OFFSETS = (0, 1e2, 1e4, 1e5)
CASES = [
    *both_ways("layer_norm", "", 64, 768),
    *both_ways("batch_norm", "", 16, 32, 28, 28, axis=1),
    *both_ways("group_norm", "", 4, 64, 28, 28, axis=1, groups=8),
    *both_ways("instance_norm", "", 4, 64, 28, 28, axis=1),
    replace(both_ways("moments", "", 4096, 64, axis=0)[0], out=False),
    replace(both_ways("standardize", "", 4096, 64, axis=0)[0], out=True),
]


def error(case, name, offset):
    """The error of a contender, None where it lacks the operation; not a number as infinity."""
    problem = Problem(case)
    values = np.random.default_rng(1).standard_normal(case.shape)
    problem.x[...] = offset + values
    contender = build(name, problem, nf.get_num_threads())
    if contender is None:
        return None
    with contender.state():
        return problem.error(contender.results(contender.run()))


def shown(value):
    return "-" if value is None else "NaN" if np.isinf(value) else f"{value:.0e}"


def table(names):
    """The errors in Markdown, a row for each operation and offset."""
    lines = [f"| float32 | mean / std | {' | '.join(names)} |", "| --- " * (2 + len(names)) + "|"]
    for case in CASES:
        for offset in OFFSETS:
            cells = [case.name, f"{offset:g}", *(shown(error(case, name, offset)) for name in names)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments=None):
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m normfast.benchmarks.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--against", nargs="*", choices=tuple(RIVALS), help="rivals (default: all that are installed)")
    options = parser.parse_args(arguments)
    rivals = [name for name in RIVALS if installed(name) and name != "torch.compile"] if options.against is None else options.against
    print(table([next(iter(OURS)), *rivals]))


if __name__ == "__main__":
    main()
