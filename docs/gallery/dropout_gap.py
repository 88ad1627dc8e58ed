"""Dropout narrows the gap between training and test accuracy.

Networks that can learn their samples by heart (two hidden layers of 128 ReLU units, no norm, 600 steps at learning rate 0.1) on three data
sets, dropout behind each hidden layer: 200 handwritten digits, of which 1597 others test; half of the breast cancer samples; half of the
diabetes patients, where the question is whether the disease progressed more than in the median patient, which the ten measurements tell
only in part. All accuracies are taken at inference.
"""

import numpy as np
from figures import Check, Panel, larger, show
from pages import main
from sklearn import datasets
from sklearn.model_selection import train_test_split
from training import Split, accuracy, digits, network, trained

from normfast.preprocessing import Standardizer

SEEDS = range(10)
RATES = [0.0, 0.1, 0.3, 0.5, 0.7]
SETS = "digits", "breast cancer", "diabetes"


def split(name, seed):
    if name == "digits":
        return digits(seed, size=200)
    x, y = (datasets.load_breast_cancer if name == "breast cancer" else datasets.load_diabetes)(return_X_y=True)
    labels = y if name == "breast cancer" else (y > np.median(y)).astype(int)
    train, test, train_labels, test_labels = train_test_split(x, labels, test_size=0.5, random_state=seed, stratify=labels)
    scaler = Standardizer().fit(train)
    return Split(scaler.transform(train).astype(np.float32), train_labels, scaler.transform(test).astype(np.float32), test_labels)


def measure(seed):
    figures = {}
    for name in SETS:
        data, rows = split(name, seed), []
        for p in RATES:
            model = network((data.x.shape[1], 128, 128, data.labels.max() + 1), seed, dropout=p)
            trained(model, data, seed, 600, batch=32)
            rows.append((accuracy(model, data.x, data.labels), accuracy(model, data.test, data.test_labels)))
        figures[f"{name} training"], figures[f"{name} test"] = map(list, zip(*rows, strict=True))
    return figures


def judge(figures):
    checks, half = [], RATES.index(0.5)
    for name in SETS:
        test = figures[f"{name} test"]
        gap = figures[f"{name} training"] - test
        found = f"{show(gap[:, half], ' points')} with, {show(gap[:, 0], ' points')} without"
        checks.append(Check(f"{name}: p = 0.5 has a smaller gap than no dropout", found, larger(gap[:, 0], gap[:, half])))
        found = f"{show(test[:, half], ' %')} with, {show(test[:, 0], ' %')} without"
        checks.append(Check(f"{name}: p = 0.5 has a higher test accuracy", found, larger(test[:, half], test[:, 0])))
    return checks


PANELS = [
    Panel(name.capitalize(), "p of dropout", "accuracy in %", RATES, {part: f"{name} {part}" for part in ("training", "test")})
    for name in SETS
]

if __name__ == "__main__":
    main(__file__)
