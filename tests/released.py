"""A small released checkpoint for the tests that need one: two runs, a card, and what `release` makes of them."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_pair_scores import build
from training_runs import arguments, write_text

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.tokenization import save_tokenizer
from hf_vanilla_transformer.publishing import PublicPaths, read_card, release
from hf_vanilla_transformer.training import report
from hf_vanilla_transformer.training.environment import describe_environment
from hf_vanilla_transformer.training.recipes import given_values

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


def make_runs(text, folder, seeds=(7, 42), **changes):
    """Writes what runs leave, one for each seed, with weights that have learned a few words; returns their folders."""
    pairs = [json.loads(line)["translation"] for line in (text / "train.jsonl").read_text().splitlines()]
    tokenizer = train_tokenizer(texts=[sentence for pair in pairs for sentence in pair.values()], vocab_size=300)
    folders = []
    for seed in seeds:
        path = folder / f"seed{seed}"
        model = learn(build(tokenizer, seed, norm_position="pre"), tokenizer, pairs)
        model.generation_config.num_beams = 2
        model.save_pretrained(path)
        save_tokenizer(tokenizer, path)
        options = {"seed": seed, "save_strategy": "no", "max_steps": 3, **changes}
        history = [{"step": step, "loss": 3.0 - step, "minutes": step * 1.5} for step in (1, 2)]
        metrics = {"updates": 3, "final_weights": "last update"}
        environment = {**describe_environment(torch.device("cpu")), "device": "A CPU", "threads": 3}
        with pytest.MonkeyPatch.context() as patch:  # drawing takes longer than all the rest
            patch.setattr(report, "plot_curves", lambda history, path, objective: Path(path).write_bytes(b"a picture"))
            given = given_values(arguments(text, path, **options))
            report.write_results(path, given, metrics, history, environment)
        folders.append(path)
    return folders


def learn(model, tokenizer, pairs, updates=40):
    """Trains for a second, after which translations have some words of the target in them."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    pairs = pairs[:40]
    batch = tokenizer([pair["en"] for pair in pairs], text_target=[pair["de"] for pair in pairs], padding=True)
    labels = torch.tensor(batch["labels"])
    labels[labels == tokenizer.pad_token_id] = -100
    inputs = {name: torch.tensor(batch[name]) for name in ("input_ids", "attention_mask")}
    for _ in range(updates):
        optimizer.zero_grad()
        model.train()(**inputs, labels=labels).loss.backward()
        optimizer.step()
    return model.eval()


def make_card(folder, text=CARD):
    path = Path(folder) / "card.yaml"
    path.write_text(text, encoding="utf-8")
    return read_card(path)


def make_release(text, runs, output_dir, card, **options):
    paths = PublicPaths.parse([f"{text}=data/words"])
    return release(runs, output_dir, card, paths, device="cpu", num_resamples=20, **options)


@functools.cache
def standing(make_folder):
    """One text, two runs, one card and one release for all tests, which change copies of it only."""
    text = make_text(make_folder("text"))
    runs = make_runs(text, make_folder("runs"))
    card = make_card(make_folder("card"))
    folder = make_folder("model_cards") / "backwards"
    make_release(text, runs, folder, card)
    return SimpleNamespace(text=text, runs=runs, card=card, folder=folder)
