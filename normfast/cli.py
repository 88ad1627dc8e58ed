"""The command line: `normfast demo | info`."""

import argparse

import normfast
from normfast.engines import ENGINES


def main(arguments=None):
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="normfast", description=normfast.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"normfast {normfast.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    demo = commands.add_parser("demo", help="train a network on handwritten digits, with and without batch norm")
    demo.add_argument("--seed", type=int, default=0, help="of the split, the weights and the masks (default 0)")
    demo.add_argument("--engine", choices=("auto", *ENGINES), default="auto", help="what runs the kernels (default auto)")
    demo.add_argument("--epochs", type=_positive, default=40, help="passes over the training images (default 40)")
    demo.add_argument("--out", default="normfast-demo.png", help="file of the picture (default normfast-demo.png)")
    demo.add_argument("--no-plot", action="store_true", help="write no picture")

    commands.add_parser("info", help="show the engines, instruction sets and threads of this installation")

    options = parser.parse_args(arguments)
    if options.command == "info":
        normfast.show_config()
        return 0
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


def _positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
