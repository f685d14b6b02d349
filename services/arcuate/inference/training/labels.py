"""The label scheme of the training maps, read from labels.csv.

labels.csv has one row a source label: the class it is trained as (a FreeSurfer number, 0 = background), the source
label of the other side, and the tissue that decides which intensities the generator may give it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TABLE = Path(__file__).with_name("labels.csv")


@dataclass(frozen=True)
class LabelScheme:
    """Source labels, numbered 0..n-1 in the order of labels.csv, and the classes trained from them.

    classes[k] is the FreeSurfer number of class k (classes[0] = 0, background). class_of[i] is the class index of
    source i, group_of[i] joins the two sides of a structure, tissue_of[i] is its tissue's name. swapped[k] is the class
    index that class k becomes in a mirror.
    """

    source: NDArray[np.int64]
    names: tuple[str, ...]
    classes: tuple[int, ...]
    class_of: NDArray[np.int64]
    group_of: NDArray[np.int64]
    tissue_of: tuple[str, ...]
    swapped: NDArray[np.int64]

    def index_table(self) -> NDArray[np.uint8]:
        """256 entries: stored label value -> source index. An unknown value becomes background."""
        table = np.zeros(256, np.uint8)
        table[self.source] = np.arange(len(self.source), dtype=np.uint8)
        return table


@cache
def load() -> LabelScheme:
    """The scheme of labels.csv."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    source = [int(row["label"]) for row in rows]
    trained = [int(row["class"]) for row in rows]
    classes = (0, *sorted(set(trained) - {0}))
    other = dict(zip(source, (int(row["mirror"]) for row in rows), strict=True))
    groups = [min(label, other[label]) for label in source]
    group_numbers = {label: number for number, label in enumerate(sorted(set(groups)))}
    return LabelScheme(
        source=np.array(source),
        names=tuple(row["name"] for row in rows),
        classes=classes,
        class_of=np.array([classes.index(label) for label in trained]),
        group_of=np.array([group_numbers[label] for label in groups]),
        tissue_of=tuple(row["tissue"] for row in rows),
        swapped=np.array([0, *(classes.index(other[label]) for label in classes[1:])]),
    )
