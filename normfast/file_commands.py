"""The commands `normfast moments` and `normfast standardize`: their arguments, what they print, and their exit status.

0: done. 1: something failed (a damaged file, a full disk, a check). 2: used wrongly. 130: interrupted.
"""

import argparse
import json
import math
import os
import sys

WRONG = (TypeError, ValueError, FileNotFoundError, FileExistsError, ModuleNotFoundError)
ROWS = 20  # of statistics that are printed


def add_commands(commands):
    """Add both to a parser."""
    moments = commands.add_parser("moments", help="count, mean and deviation of a file larger than memory")
    standardize = commands.add_parser("standardize", help="standardize, scale or whiten a file larger than memory")
    for command in (moments, standardize):
        command.add_argument("input", metavar="IN", help=".npy, .npz[:MEMBER], .zarr[:ARRAY], .parquet, or raw with --shape and --dtype")
    standardize.add_argument("output", metavar="OUT", help=".npy, .raw, .zarr or .parquet")
    standardize.add_argument("--method", choices=("standardize", "minmax", "whiten"), default="standardize", help="(default standardize)")
    for command, default in ((moments, "all"), (standardize, "0")):
        command.add_argument(
            "--axis", type=_axis, default=_axis(default), metavar="AXES", help=f"such as 0 or 0,2 or all (default {default})"
        )
        command.add_argument("--ddof", type=float, default=0, help="the variance is m2 / (count - ddof) (default 0)")
        command.add_argument("--member", metavar="NAME", help="of a .npz or of a group of Zarr")
        command.add_argument("--columns", type=lambda text: text.split(","), metavar="NAMES", help="of a Parquet table (default all)")
        command.add_argument("--shape", type=_shape, help="of a raw file, such as 1000,20; one length may be -1")
        command.add_argument("--offset", type=int, default=0, help="bytes before the values of a raw file (default 0)")
        command.add_argument("--order", choices="CF", default="C", help="of the values of a raw file (default C)")
        command.add_argument("--quiet", action="store_true", help="show no progress")
    moments.add_argument("--dtype", help="of the values of a raw file")
    moments.add_argument("--nan-policy", choices=("propagate", "omit", "raise"), default="propagate", help="(default propagate)")
    moments.add_argument("--state", metavar="FILE", help="keep there how far the pass is, and go on from it")
    moments.add_argument("--json", action="store_true", help="all values, for machines; what is not finite is null")
    standardize.add_argument(
        "--dtype", help="of the result; of a raw file too: of its values, and of the result unless --out-dtype differs"
    )
    standardize.add_argument("--out-dtype", metavar="DTYPE", help="of the result, where a raw file has another")
    standardize.add_argument("--range", nargs=2, type=float, default=(0.0, 1.0), metavar=("LOW", "HIGH"), help="of minmax (default 0 1)")
    standardize.add_argument("--resume", action="store_true", help="go on from where an interrupted run was")
    standardize.add_argument("--check", action="store_true", help="read result and input again, before the result gets its name")
    standardize.add_argument("--force", action="store_true", help="replace OUT")


def run(options):
    """Run one of them; returns the exit status."""
    from normfast.stream.errors import FileError

    prefix = f"normfast {options.command}: "
    try:
        (_moments if options.command == "moments" else _standardize)(options)
    except KeyboardInterrupt:
        again = "the same command with --resume" if options.command == "standardize" else "the same command" if options.state else None
        print(f"{prefix}interrupted{f': {again} goes on from here' if again else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read what was printed has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (*WRONG, OSError) as error:
        print(f"{prefix}{_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, FileError) or not isinstance(error, WRONG) else 2
    return 0


def _source(options):
    from normfast.stream.sources import open_source
    from normfast.stream.values import raw

    if options.shape is None:
        if options.offset or options.order != "C":
            raise ValueError("--offset and --order are for raw files, which need --shape and --dtype")
        return open_source(options.input, member=options.member, columns=options.columns)
    if options.dtype is None:
        raise ValueError(f"{options.input}: a raw file needs --dtype, such as --dtype '<f4'")
    return raw(options.input, options.shape, _dtype(options.dtype), offset=options.offset, order=options.order)


def _standardize(options):
    from normfast.stream import transform

    dtype = options.out_dtype or (options.dtype if options.shape is None else None)
    transform(
        _source(options),
        options.output,
        method=options.method,
        axis=options.axis,
        ddof=options.ddof,
        feature_range=options.range,
        dtype=None if dtype is None else _dtype(dtype),
        resume=options.resume,
        force=options.force,
        check=options.check,
        progress=not options.quiet,
    )


def _moments(options):
    import numpy as np

    from normfast.stream.summing import summary

    if options.dtype and options.shape is None:
        raise ValueError("--dtype is for raw files, which need --shape too")
    source = _source(options)
    m, smallest, largest = summary(source, options.axis, options.nan_policy, options.state, not options.quiet)
    values = {"mean": m.mean, "std": np.asarray(m.std(options.ddof)), "min": smallest, "max": largest}
    if options.json:
        found = {"file": source.name, "shape": list(source.shape), "dtype": source.dtype.str, "ddof": options.ddof}
        found |= {"axis": options.axis if options.axis is None or isinstance(options.axis, int) else list(options.axis)}
        found |= {"count": np.asarray(m.count).tolist(), **{name: _finite(part.tolist()) for name, part in values.items()}}
        print(json.dumps(found))
        return
    columns = source.columns if source.columns and m.mean.shape == (len(source.columns),) else None
    print(f"{source.name}: {' x '.join(map(str, source.shape)) or 'one'} values of {source.dtype}")
    counts = np.broadcast_to(m.count, m.mean.shape)
    wide = max(5, *(len(name) for name in columns)) if columns else 5 * max(1, m.mean.ndim)
    print(f"{'':{wide}} {'count':>14}" + "".join(f"{name:>16}" for name in values))
    for number, index in enumerate(np.ndindex(m.mean.shape)):
        if number == ROWS:
            print(f"... and {m.mean.size - ROWS} more: --json prints all")
            break
        name = columns[index[0]] if columns else ",".join(map(str, index)) or "all"
        print(f"{name:>{wide}} {counts[index]:14}" + "".join(f"{part[index]:16.9g}" for part in values.values()))


def _finite(values):
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return values if math.isfinite(values) else None


def _line(error):
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _dtype(text):
    import numpy as np

    try:
        return np.dtype(text)
    except TypeError:
        raise TypeError(f"there is no dtype {text!r}: such as float32, float64, int16, '>f4'") from None


def _axis(text):
    if text in ("all", "none"):
        return None
    axes = _shape(text)
    return axes[0] if len(axes) == 1 else axes


def _shape(text):
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, such as 0,2") from None
