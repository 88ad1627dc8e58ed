"""Channels of small gamma can be cut, more of them after an L1 penalty on gamma.

Handwritten digits, two hidden layers of 64 ReLU units with batch norm, 2000 steps at learning rate 0.1 with an L1 penalty of 0, 0.01 or
0.03 on the gammas (`normfast.pruning.l1_subgradient`; Liu et al. 2017). `prune` cuts a share of all channels by |gamma|, ranked over both
layers; accuracy is taken before and after 200 steps of fine-tuning without penalty. As a control as many channels are cut at random.

Where gammas are not small, their order over the network says little: the norm of the second layer takes any common factor out of
the first layer's gammas and betas, so that one layer can lose all its channels but one while the other keeps its own.
"""

import copy
from functools import partial

import numpy as np
from figures import Check, Panel, larger, same, show
from pages import main
from training import accuracy, digits, network, trained

from normfast.pruning import l1_subgradient, prune, rank

SEEDS = range(5)
SHARES = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
STRENGTHS = {"L1 of 0.03": 0.03, "L1 of 0.01": 0.01, "no L1": 0.0}
CUT = SHARES.index(60)


def shuffled(model, seed):
    """The same function with its channels ranked at random.

    ReLU lets a positive factor through: it moves from gamma and beta into the weights that take the channel, and the outputs stay.
    """
    model, rng = copy.deepcopy(model), np.random.default_rng(seed)
    for layer, sink in zip(model.layers[:-1], model.layers[1:], strict=True):
        gamma, beta = layer.norm.weight.data, layer.norm.bias.data
        factor = (rng.uniform(0.1, 1.0, gamma.shape) / np.maximum(np.abs(gamma), 1e-6)).astype(np.float32)
        gamma *= factor
        beta *= factor
        sink.weight.data /= factor
    return model


def measure(seed):
    data, figures = digits(seed), {}

    def test(model):
        return accuracy(model, data.test, data.test_labels)

    for name, strength in STRENGTHS.items():
        model = trained(network((64, 64, 64, 10), seed, "batch"), data, seed, 2000, penalty=partial(l1_subgradient, strength=strength))
        cut = [prune(model, share=share / 100) for share in SHARES]
        figures[f"{name} cut"] = [test(smaller) for smaller in cut]
        figures[f"{name} random"] = [test(prune(shuffled(model, seed), share=share / 100)) for share in SHARES]
        figures[f"{name} tuned"] = [test(trained(smaller.train(), data, seed, 200)) for smaller in cut]
        figures[f"{name} small"] = 100 * float((rank(model)["gamma"] < 0.01).mean())
    return figures


def judge(figures):
    whole = {name: figures[f"{name} cut"][:, 0] for name in STRENGTHS}
    cut, random, tuned = ({name: figures[f"{name} {kind}"][:, CUT] for name in STRENGTHS} for kind in ("cut", "random", "tuned"))
    strong, none = "L1 of 0.03", "no L1"
    small = {name: figures[f"{name} small"] for name in STRENGTHS}
    share = f"{SHARES[CUT]} % of the channels cut"
    checks = [
        Check(
            "more gammas below 0.01 with L1",
            f"{show(small[strong], ' %')} with, {show(small[none], ' %')} without",
            larger(small[strong], small[none]),
        ),
        Check(
            f"with L1, {share} cost less than a point",
            f"{show(cut[strong], ' %')} of {show(whole[strong], ' %')}",
            same(whole[strong], cut[strong], 1.0),
        ),
        Check(
            "without L1 they cost more than a point",
            f"{show(cut[none], ' %')} of {show(whole[none], ' %')}",
            larger(whole[none], cut[none], by=1.0),
        ),
        Check(
            "L1 by itself costs less than a point",
            f"{show(whole[strong], ' %')} with, {show(whole[none], ' %')} without",
            same(whole[strong], whole[none], 1.0),
        ),
        Check(
            f"with L1, {share} and fine-tuned is within a point of the whole network without L1",
            f"{show(tuned[strong], ' %')} and {show(whole[none], ' %')}",
            same(tuned[strong], whole[none], 1.0),
        ),
    ]
    for name in (strong, none):
        found = f"{show(cut[name], ' %')} by gamma, {show(random[name], ' %')} at random"
        checks.append(Check(f"{name}: {share} by gamma is better than at random", found, larger(cut[name], random[name])))
    return checks


TITLES = {"cut": "Cut by |gamma|", "tuned": "Cut by |gamma| and fine-tuned", "random": "Cut at random"}
PANELS = [
    Panel(title, "channels cut in %", "test accuracy in %", SHARES, {name: f"{name} {kind}" for name in STRENGTHS})
    for kind, title in TITLES.items()
]

if __name__ == "__main__":
    main(__file__)
