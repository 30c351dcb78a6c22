"""A run folder in pandas: how losses and operations fared, and what each class was taken for.

    python examples/read_run.py runs/mine

takes the run folder of a search whose cell was trained. docs/run-folder.md explains every column.
"""

import sys
from pathlib import Path

import pandas as pd

import dasvit


def main(folder: str) -> None:
    """Print four tables of a run."""
    search = pd.read_json(Path(folder, "metrics.jsonl"), lines=True)
    print("Losses of the search, at the end of every stage:")
    print(search.groupby("stage")[["train_loss", "val_loss", "val_top1", "seconds"]].last().round(3))

    epochs = pd.read_json(Path(folder, "architecture.jsonl"), lines=True)
    operations = pd.DataFrame(list(epochs["mean_weights"]))
    print("\nWeights of the operations, averaged over the edges (first and last epoch):")
    print(operations.iloc[[0, -1]].T.round(3))

    last = pd.DataFrame(epochs["weights"].iloc[-1]).T  # a row an edge, a column an operation still alive
    print("\nThe strongest operation of every edge:")
    print(pd.DataFrame({"operation": last.idxmax(axis=1), "weight": last.max(axis=1).round(3)}))

    model = dasvit.TrainedModel(folder)
    confusion = pd.DataFrame(model.result["confusion"])  # a row for what it is, a column for what it was taken for
    right = pd.Series(confusion.to_numpy().diagonal(), name="right")
    print("\nTest images of every class, and how many were named rightly:")
    print(pd.DataFrame({"images": confusion.sum(axis=1), "right": right}))


if __name__ == "__main__":
    main(*sys.argv[1:])
