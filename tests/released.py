"""A small released checkpoint for the tests that need one: two runs of a few updates, and a card."""

import json
from pathlib import Path

from training_runs import arguments, write_text

from hf_vanilla_transformer.publishing import PublicPaths, read_card, release
from hf_vanilla_transformer.training import pretrain

CARD = """
title: Backwards
languages: [en, de]
license: other
license_name: mine
license_link: https://example.org/licence
datasets: [me/backwards]
tags: [toy]
summary: Writes | sentences *backwards*.
intended_use: Tests.
training_data: Random words.
limits: Everything else.
inputs: [red dog, 'big <cat> | "runs"']
test_sets:
  - name: val
    title: Words, validation
    role: validation
    texts:
      val: {path: data/words/val.jsonl}
  - name: test
    title: Words, test
    role: test
    texts:
      test: {source: data/words/test.en, target: data/words/test.de}
    dataset: me/backwards
    split: test
    moses_lowercase: de
    published:
      - {system: Another, metric: bleu, value: 12.5, scoring: moses_lowercase, source: https://example.org/paper}
"""


def make_text(folder):
    """Writes training and validation text and a test set of longer sentences, and returns the folder."""
    write_text(folder)
    rows = [json.loads(line)["translation"] for line in (folder / "train.jsonl").read_text().splitlines()]
    for lang in ("en", "de"):
        lines = [" ".join([first[lang], second[lang]]) for first, second in zip(rows[:12], rows[12:24])]
        (folder / f"test.{lang}").write_text("\n".join(lines) + "\n")
    return folder


def make_runs(text, folder, seeds=(42, 7), **changes):
    """Trains for a few updates with each seed, and returns the folders of the runs."""
    folders = []
    for seed in seeds:
        folders.append(folder / f"seed{seed}")
        changes = {"max_steps": 3, "seed": seed, "save_strategy": "no", "eval_strategy": "no", **changes}
        pretrain(arguments(text, folders[-1], **{**changes, "seed": seed}))
    return folders


def make_card(folder, text=CARD):
    path = Path(folder) / "card.yaml"
    path.write_text(text, encoding="utf-8")
    return read_card(path)


def make_release(text, runs, output_dir, card, **options):
    paths = PublicPaths.parse([f"{text}=data/words"])
    return release(runs, output_dir, card, paths, device="cpu", num_resamples=20, **options)
