"""How `latse filter --centres means` judges, beside plain means, on sets of `latse data noise`.

`python tests/paper/means_trial.py WHAT SET...` prints for both rules, by how many images carry the label,
what share of the wrong labels and of the right ones k = 1 refuses, and how many verdicts are false: wrong
labels that are kept and right ones that are refused. All sets are counted together. WHAT is a model of
`latse eval`; pca and fisherfaces are fitted to each set.
Plain means are those of all images of a person, the image itself left out, without benefit of the doubt.
"""

import sys

import mxnet as mx
import numpy as np

from latse.data.shards.noise import CLEAN, read_truth
from latse.data.shards.records import Shard
from latse.eval.candidates import open_model
from latse.paper.set_embeddings import embeddings_of
from latse.train import means
from latse.train.verdict_truth import GROUPS


def plain(rows, labels, people):
    every = slice(0, len(labels))
    sums = means.Means.of(rows, labels, np.ones(len(labels), bool), people)
    return sums.others(rows, every).max(axis=1) > sums.own(rows, every) + means.TIE


def ours(rows, labels, people):
    return means.settle(rows, labels, people).ranks(rows, slice(0, len(labels))).rank >= 1


def main(what, *folders):
    counts = {(rule, group): np.zeros(4, int) for rule in (plain, ours) for group in GROUPS}
    for folder in folders:
        shard, fitted = Shard(folder), folder if what in ("pca", "fisherfaces") else None
        model = open_model(what, [mx.cpu()], 32, fitted)
        everything = np.arange(len(shard))
        rows = embeddings_of(model, shard).of(everything, np.zeros(len(shard), bool))
        wrong = read_truth(folder).kind != CLEAN
        images = np.bincount(shard.labels)[shard.labels]
        for (rule, group), count in counts.items():
            least, most = GROUPS[group]
            refused, inside = rule(rows, shard.labels, shard.classes), (images >= least) & (images <= most)
            for at, kind in enumerate((wrong & inside, ~wrong & inside)):
                count[2 * at : 2 * at + 2] += refused[kind].sum(), kind.sum()
    for (rule, group), (caught, wrong, lost, right) in counts.items():
        shares = (
            f"{100 * caught / max(1, wrong):5.1f} of {wrong}",
            f"{100 * lost / max(1, right):5.1f} of {right}",
        )
        print(f"{rule.__name__:5}  {group:10}  {', '.join(shares)}; false: {wrong - caught + lost}")


if __name__ == "__main__":
    main(*sys.argv[1:])
