"""Batch norm and dropout together need not be better than either alone.

500 handwritten digits to train on, the other 1297 to test, two hidden layers of 64 ReLU units, 400 steps at learning rate 0.1; with batch
norm, with dropout behind each hidden layer, with both (norm, ReLU, dropout) and with neither. Test accuracy by the probability of dropout.
"""

from figures import Check, Panel, larger, show
from pages import main
from training import accuracy, digits, network, trained

SEEDS = range(10)
RATES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
NORMS = {"with batch norm": "batch", "without": None}


def measure(seed):
    data, figures = digits(seed, size=500), {}
    for name, norm in NORMS.items():
        models = [trained(network((64, 64, 64, 10), seed, norm, dropout=p), data, seed, 400) for p in RATES]
        figures[name] = [accuracy(model, data.test, data.test_labels) for model in models]
    return figures


def judge(figures):
    norm, neither = (figures[name][:, 0] for name in NORMS)
    best = {name: RATES[1:][figures[name][:, 1:].mean(axis=0).argmax()] for name in NORMS}
    both, dropout = (figures[name][:, RATES.index(best[name])] for name in NORMS)
    words = [f"at its best p, {best[name]:g}" for name in NORMS]
    return [
        Check(
            "both are not clearly better than batch norm alone",
            f"{show(both, ' %')} {words[0]}, {show(norm, ' %')} norm alone",
            not larger(both, norm),
        ),
        Check(
            "both are not clearly better than dropout alone",
            f"{show(both, ' %')} {words[0]}, {show(dropout, ' %')} dropout alone {words[1]}",
            not larger(both, dropout),
        ),
        Check("batch norm alone is better than neither", f"{show(norm, ' %')} and {show(neither, ' %')}", larger(norm, neither)),
        Check("dropout alone is better than neither", f"{show(dropout, ' %')} and {show(neither, ' %')}", larger(dropout, neither)),
    ]


PANELS = [Panel("Batch norm and dropout", "p of dropout", "test accuracy in %", RATES, {name: name for name in NORMS})]

if __name__ == "__main__":
    main(__file__)
