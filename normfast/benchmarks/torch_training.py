"""Real PyTorch models trained as they are and accelerated: loss curves and time per step, for docs/torch.md.

python -m normfast.benchmarks.torch_training [--docs docs/torch.md] [--steps 30] [--seeds 3]
"""

import argparse
import copy
import platform
import statistics
import time

import normfast as nf
from normfast.benchmarks.page import markdown, table_between
from normfast.extras import needed

torch = needed("torch", "torch", "normfast.benchmarks.torch_training")
nn = torch.nn

BEGIN, END = "<!-- table: python -m normfast.benchmarks.torch_training -->", "<!-- end of table -->"


class Transformer(nn.Module):
    """Names the token that a sequence repeats most."""

    def __init__(self, d, dropout, layers=2, words=16):
        super().__init__()
        self.embed = nn.Embedding(words, d)
        layer = nn.TransformerEncoderLayer(d, 8, 4 * d, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(d, words)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))

    def batch(self, generator):
        x = torch.randint(16, (8, 128), generator=generator)
        return x, x.mode(1).values


class Block(nn.Module):
    """Two convolutions with batch norm beside a shortcut."""

    def __init__(self, inner, outer, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Tells which quarter of an image is brightest."""

    def __init__(self, width, size):
        super().__init__()
        self.size = size
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2))
        self.head = nn.Linear(4 * width, 4)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))

    def batch(self, generator):
        x, half = torch.randn(16, 3, self.size, self.size, generator=generator), self.size // 2
        quarter = torch.randint(4, (16,), generator=generator)
        for image, q in zip(x, quarter.tolist(), strict=True):
            image[:, half * (q // 2) :, half * (q % 2) :][:, :half, :half] += 1
        return x, quarter


MODELS = {
    "Transformer, d = 256, dropout 0.1": lambda: Transformer(256, 0.1),
    "Transformer, d = 256, dropout 0": lambda: Transformer(256, 0.0),
    "Transformer, d = 512, dropout 0.1": lambda: Transformer(512, 0.1),
    "Transformer, d = 768, dropout 0.1": lambda: Transformer(768, 0.1),
    "ResNet, 3 blocks from 32 channels, images of 32 x 32": lambda: ResNet(32, 32),
    "ResNet, 3 blocks from 32 channels, images of 112 x 112": lambda: ResNet(32, 112),
}


class Run:
    """A model in training: its losses and the seconds of its steps."""

    def __init__(self, model):
        self.model, self.losses, self.seconds = model, [], []
        self.optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)

    def step(self, batch, seed):
        torch.manual_seed(seed)
        start = time.perf_counter()
        loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(loss.item())


def trained(make, steps, seed):
    """PyTorch's and the accelerated run on the same weights and batches, their steps in turns."""
    from normfast.torch import accelerate

    torch.manual_seed(seed)
    model, generator = make(), torch.Generator().manual_seed(seed)
    runs = [Run(model), Run(accelerate(copy.deepcopy(model)))]
    for k in range(steps):
        batch = model.batch(generator)
        for run in runs if k % 2 else runs[::-1]:
            run.step(batch, 1000 * seed + k)
    return runs


def final(run):
    """The loss at the end, over its last steps."""
    return statistics.mean(run.losses[-max(1, len(run.losses) // 5) :])


def row(name, make, steps, seeds):
    """A line of the table: time per step of both, and their losses."""
    runs = [trained(make, steps, seed) for seed in range(seeds)]
    ms = [statistics.median(seconds for pair in runs for seconds in pair[i].seconds[1:]) * 1e3 for i in range(2)]
    finals = [[final(pair[i]) for pair in runs] for i in range(2)]
    apart = max(abs(a - b) for pair in runs for a, b in zip(pair[0].losses, pair[1].losses, strict=True))
    texts = [f"{statistics.mean(own):.3f} ({min(own):.3f} to {max(own):.3f})" for own in finals]
    return [name, *(f"{value:.1f} ms" for value in ms), f"{ms[0] / ms[1]:.2f}", *texts, f"{apart:.0e}"]


def table(steps, seeds):
    """The machine and the table, as Markdown."""
    config = nf.show_config("dicts")
    facts = (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, normfast {nf.__version__} ({config['engine']}: {config['engines'][config['engine']]}); "
        f"{seeds} seeds of {steps} steps, median time of a step, mean loss of the last fifth (least to largest over the seeds)."
    )
    columns = ["model", "PyTorch", "accelerated", "speed-up", "loss, PyTorch", "loss, accelerated", "curves apart by"]
    return f"{facts}\n\n{markdown(columns, [row(name, make, steps, seeds) for name, make in MODELS.items()])}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=table_between(BEGIN, END), help="page whose table is written anew")
    options = parser.parse_args(arguments)
    text = table(options.steps, options.seeds)
    print(text)
    if options.docs:
        options.docs(text)


if __name__ == "__main__":
    main()
