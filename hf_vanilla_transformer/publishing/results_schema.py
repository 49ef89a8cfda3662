"""results.json of a released checkpoint: everything that its card says, so that the card can be made again from it.

Metrics have the names of `evaluation.METRICS`, and their figures are in percent.
"""

from typing import Any, TypedDict

# Goes up when a key changes its meaning, so that a card is not made of what is no longer understood.
FORMAT = 1


class Score(TypedDict, total=False):
    """One figure, as `evaluation.Score.as_dict` has it: `interval` is half the width of the 95 % interval."""

    value: float
    interval: float | None
    signature: str


class Scoring(TypedDict, total=False):
    """The figures of one text, all computed in one way: what stands in one table, and in no other.

    `name` is `cased`, `moses_lowercase` and so on, `title` says the same to people, and `text` what was done to the
    text (None: nothing). `runs` has the figures of each run by metric, in the order of `Training.runs`, averaged over
    the texts where there are several; `parts` has the same of each text, such as a language, or nothing where there is
    one; `published` has figures from elsewhere, as in CARD.yaml.
    """

    name: str
    title: str
    text: str | None
    runs: list[dict[str, Score]]
    parts: dict[str, list[dict[str, Score]]]
    published: list[dict[str, Any]]


class Evaluation(TypedDict, total=False):
    """One test set: `role` is `validation` or `test`; `outputs` has for each run the files of its translations, in the
    order of `texts`, which names the parts of the test set; `sentences` are those of all parts.
    """

    name: str
    title: str
    role: str
    dataset: str | None
    split: str | None
    sentences: int
    references: int
    texts: list[str]
    outputs: list[list[str]]
    scorings: list[Scoring]


class Run(TypedDict, total=False):
    """One run: its seed, updates, wall-clock minutes, what its weights are, and on what it was computed."""

    seed: int
    updates: int
    minutes: float
    final_weights: str
    environment: dict[str, Any] | None


class Training(TypedDict, total=False):
    """All runs of one recipe (`arguments`), which of them is shipped (counted from 0), and by what it was chosen."""

    runs: list[Run]
    shipped: int
    chosen_by: str | None
    arguments: dict[str, Any]


class Example(TypedDict, total=False):
    """A sentence with its translation; of a test set also its reference, and the score by which it was picked."""

    source: str
    output: str
    reference: str
    score: float


class Examples(TypedDict):
    """The best and the worst translations of a test set, the rule by which they were picked, and its metric."""

    rule: str
    metric: str
    good: list[Example]
    bad: list[Example]


class Results(TypedDict, total=False):
    """All of it.

    `name` is that of the folder, `card` what CARD.yaml says, `model` the shape of the model and how it decodes,
    `inputs` are the example sentences of the card with their translations, `history` is the log of the shipped run.
    """

    format: int
    name: str
    card: dict[str, Any]
    model: dict[str, Any]
    training: Training
    evaluations: list[Evaluation]
    inputs: list[Example]
    examples: Examples | None
    environment: dict[str, Any]
    history: list[dict[str, Any]]


def verb_of(arguments: dict[str, Any]) -> str:
    """Says by which command a run is repeated.

    Args:
        arguments: of the run.

    Returns:
        A verb of the command line.
    """
    return "finetune" if arguments.get("model_name_or_path") else "pretrain"
