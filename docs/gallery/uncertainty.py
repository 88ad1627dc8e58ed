"""The uncertainty of Monte-Carlo dropout tells which answers are wrong.

A network with dropout 0.3 (two hidden layers of 64 ReLU units, 300 digits to train on) answers for 1497 test images by the mean of 50
passes with dropout on (`normfast.inference.mc_predict`). Its uncertainty is the standard deviation, over the passes, of the probability
of the class that it names; beside it stands the usual measure, 1 - the largest probability of one pass without dropout. The area under the
ROC curve is the chance that a wrong answer is less certain than a right one: 50 % for a guess. The picture keeps the most certain
answers.
"""

import numpy as np
from figures import Check, Panel, larger, same, show
from pages import main
from sklearn.metrics import roc_auc_score
from training import digits, network, trained

from normfast.inference import mc_predict
from normfast.layers import Layer, Sequential

SEEDS = range(10)
KEPT = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]


class Softmax(Layer):
    def forward(self, x):
        p = np.exp(x - x.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)


def ranked(wrong, uncertainty):
    """Area under the ROC curve, and the accuracy among the most certain answers, in %."""
    order = np.argsort(uncertainty, kind="stable")
    kept = [100 - 100 * wrong[order[: len(order) * share // 100]].mean() for share in KEPT]
    return 100 * roc_auc_score(wrong, uncertainty), kept


def measure(seed):
    data = digits(seed, size=300)
    model = Sequential(*trained(network((64, 64, 64, 10), seed, dropout=0.3), data, seed, 400).layers, Softmax())
    mean, std = mc_predict(model, data.test, 50, rng=seed)
    once, answers = model.eval()(data.test), mean.argmax(axis=1)
    wrong, wrong_once = answers != data.test_labels, once.argmax(axis=1) != data.test_labels
    spread = std[np.arange(len(answers)), answers]
    figures = {"accuracy": 100 - 100 * wrong.mean(), "accuracy once": 100 - 100 * wrong_once.mean()}
    figures["spread area"], figures["spread"] = ranked(wrong, spread)
    figures["mean area"], figures["mean"] = ranked(wrong, 1 - mean.max(axis=1))
    figures["once area"], figures["once"] = ranked(wrong_once, 1 - once.max(axis=1))
    figures["spread of wrong"], figures["spread of right"] = spread[wrong].mean(), spread[~wrong].mean()
    return figures


def judge(figures):
    area, once = figures["spread area"], figures["once area"]
    half = KEPT.index(50)
    return [
        Check(
            "wrong answers have the larger spread",
            f"{show(figures['spread of wrong'])} wrong, {show(figures['spread of right'])} right",
            larger(figures["spread of wrong"], figures["spread of right"]),
        ),
        Check(
            "the spread finds errors better than a guess",
            f"area under the ROC curve {show(area, ' %')}",
            larger(area, np.full_like(area, 50.0)),
        ),
        Check(
            "the more certain half of the answers is right more often than all",
            f"{show(figures['spread'][:, half], ' %')} and {show(figures['accuracy'], ' %')}",
            larger(figures["spread"][:, half], figures["accuracy"]),
        ),
        Check(
            "the spread finds errors better than one pass without dropout",
            f"areas {show(area, ' %')} and {show(once, ' %')}",
            larger(area, once),
        ),
        Check(
            "the mean of the passes is as right as one pass, within half a point",
            f"{show(figures['accuracy'], ' %')} and {show(figures['accuracy once'], ' %')}",
            same(figures["accuracy"], figures["accuracy once"], 0.5),
        ),
    ]


LINES = {"spread of 50 passes": "spread", "mean of 50 passes": "mean", "one pass without dropout": "once"}
PANELS = [Panel("The most certain answers", "answers kept in %", "right answers in %", KEPT, LINES)]

if __name__ == "__main__":
    main(__file__)
