"""Lists of a synthetic set for training in stages: two unlabelled sets, two labelled ones with classes in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tubelet.data.synthetic.scenes import MOTIONS
from tubelet.data.synthetic.videos import SyntheticPlan, SyntheticSet, file_name, write_lines

_FIRST: Final = 5
"""Classes of the first labelled set, from the front; the second has as many from the back, so that two are in both."""


@dataclass(frozen=True)
class HybridLists:
    """Where the lists are. Labels of `labelled_*` are names of motions; those of `target` numbers, as in classes.txt.

    `target` is the small set to learn in the end: the validation list of the synthetic set.
    """

    unlabelled_a: Path
    unlabelled_b: Path
    labelled_a: Path
    labelled_b: Path
    target: Path

    @staticmethod
    def of(folder: Path) -> HybridLists:
        """Their places in the folder of a synthetic set."""
        names = ("unlabelled_a.txt", "unlabelled_b.txt", "labelled_a.csv", "labelled_b.csv", "val.csv")
        return HybridLists(*(folder / name for name in names))


def write_hybrid(made: SyntheticSet, plan: SyntheticPlan) -> HybridLists:
    """Share out the unlabelled and the training videos of a finished set; writes lists only."""
    lists, names = HybridLists.of(made.folder), tuple(MOTIONS)
    videos = [f"videos/{file_name(index)}" for index in range(plan.unlabelled + plan.train)]
    turn = [index // len(names) % 2 for index in range(len(videos))]  # all classes of each come to both
    unlabelled = range(plan.unlabelled)
    write_lines(lists.unlabelled_a, [videos[index] for index in unlabelled if turn[index] == 0])
    write_lines(lists.unlabelled_b, [videos[index] for index in unlabelled if turn[index] == 1])
    labelled: tuple[list[str], list[str]] = ([], [])
    for index in range(plan.unlabelled, len(videos)):
        label = index % len(names)
        in_both = len(names) - _FIRST <= label < _FIRST
        first = turn[index] == 0 if in_both else label < _FIRST
        labelled[0 if first else 1].append(f"{videos[index]} {names[label]}")
    write_lines(lists.labelled_a, labelled[0])
    write_lines(lists.labelled_b, labelled[1])
    return lists
