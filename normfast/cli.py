"""The command line: `normfast demo | bench | moments | standardize | info`."""

import argparse
from pathlib import Path

import normfast
from normfast import file_commands
from normfast.engines import ENGINES


def main(arguments=None):
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="normfast", description=(normfast.__doc__ or "normfast").splitlines()[0])
    parser.add_argument("--version", action="version", version=f"normfast {normfast.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    demo = commands.add_parser("demo", help="train a network on handwritten digits, with and without batch norm")
    demo.add_argument("--seed", type=int, default=0, help="of the split, the weights and the masks (default 0)")
    demo.add_argument("--engine", choices=("auto", *ENGINES), default="auto", help="what runs the kernels (default auto)")
    demo.add_argument("--epochs", type=_positive, default=40, help="passes over the training images (default 40)")
    demo.add_argument("--out", default="normfast-demo.png", help="file of the picture (default normfast-demo.png)")
    demo.add_argument("--no-plot", action="store_true", help="write no picture")

    _add_bench(commands)
    file_commands.add_commands(commands)
    commands.add_parser("info", help="show the engines, instruction sets and threads of this installation")

    options = parser.parse_args(arguments)
    if options.command == "info":
        normfast.show_config()
        return 0
    if options.command == "bench":
        return _bench(options, parser)
    if options.command in ("moments", "standardize"):
        return file_commands.run(options)
    try:
        from normfast.demo import run
    except ImportError as error:
        parser.error(f"the demo needs {error.name}: pip install 'normfast[demo]'")
    try:
        normfast.set_engine(options.engine)
    except ImportError as error:
        parser.error(f"the {options.engine} engine is not here: {error}")
    run(options.seed, options.epochs, None if options.no_plot else options.out)
    return 0


def _add_bench(commands):
    from normfast.benchmarks.cases import OPS
    from normfast.benchmarks.rivals import RIVALS

    bench = commands.add_parser("bench", help="time every operation beside a copy of the same bytes and every rival that is installed")
    bench.add_argument("--quick", action="store_true", help="a dozen rows and short times: a minute, without the rivals that compile")
    bench.add_argument("--op", nargs="+", choices=OPS, default=[], help="these operations (default all)")
    bench.add_argument("--against", nargs="+", choices=(*RIVALS, "none"), default=[], help="these rivals (default all that are installed)")
    bench.add_argument("--series", nargs="+", choices=("models", "scaling"), default=[], help="these lists (default both)")
    bench.add_argument("--seconds", type=float, help="for each contender of a row (default 0.3, quick 0.05)")
    bench.add_argument("--turns", type=_positive, help="how often the contenders of a row take turns (default 5, quick 3)")
    bench.add_argument("--tiny", action="store_true", help="clip every length, to see that all of it runs")
    bench.add_argument("--json", metavar="FILE", help="write machine, versions, means and rows")
    bench.add_argument("--plot", metavar="FILE", help="write the roofline plot: GB/s by bytes (default beside --docs)")
    bench.add_argument("--docs", metavar="FILE", help="write the page in Markdown; in a clone: docs/benchmarks.md")


def _bench(options, parser):
    try:
        from normfast.benchmarks.run import run
    except ImportError as error:
        parser.error(f"the benchmarks need {error.name}: pip install 'normfast[bench]'")
    for file in (options.json, options.plot, options.docs):
        if file and not Path(file).absolute().parent.is_dir():
            parser.error(f"{file}: there is no such folder")
    options.seconds = options.seconds or (0.05 if options.quick else 0.3)
    options.turns = options.turns or (3 if options.quick else 5)
    if options.docs and not options.plot:
        options.plot = str(Path(options.docs).with_suffix(".png"))
    return run(options)


def _positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
