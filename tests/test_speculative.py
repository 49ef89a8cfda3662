"""Speculative decoding: a perfect draft is accepted whole, a useless one never, and the tokens stay the model's."""

import copy
import re
import shlex
from pathlib import Path

import pytest
import torch
from commanding import run, save_translator

from hf_vanilla_transformer import VanillaTransformerConfig, decoding
from hf_vanilla_transformer.commands import lab_speculative
from hf_vanilla_transformer.decoding_incremental import IncrementalDecoder
from hf_vanilla_transformer.lab import speculative
from hf_vanilla_transformer.lab.speculative import SpeculativeComparison, accepted_drafts, compare_speculative
from hf_vanilla_transformer.training import parse_arguments
from hf_vanilla_transformer.training.config_overrides import parse_overrides

PROJECT = Path(__file__).resolve().parents[1]
SENTENCES = ["a b c", "A B", "c"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    torch.manual_seed(1)
    model, tokenizer = save_translator(tmp_path_factory.mktemp("model"))
    model.generation_config.update(max_new_tokens=13, eos_token_id=None)  # random weights end by chance
    return model, tokenizer


def test_of_a_perfect_draft_all_is_accepted(pair):
    model, tokenizer = pair
    found = compare_speculative(model, copy.deepcopy(model), tokenizer, SENTENCES, draft_tokens=3, turns=1)
    assert (found.equal, found.tokens) == (3, 3 * 13)
    assert found.checks == 3 * 4  # of 4, 4, 4 and 1 tokens
    assert found.tokens_per_check == 39 / 12
    assert (found.drafted, found.acceptance) == (3 * (3 + 3 + 3), 1)  # no room for a draft before the last one


@pytest.mark.parametrize("draft_tokens", [2, 4, 6])
def test_of_a_perfect_draft_all_is_accepted_where_the_model_ends_sentences_too(pair, draft_tokens):
    model, tokenizer = copy.deepcopy(pair[0]), pair[1]
    # A token that it decodes some way into the first sentence ends all of them.
    source = torch.tensor([tokenizer(SENTENCES[0])["input_ids"]])
    model.generation_config.eos_token_id = int(model.generate(source, num_beams=1)[0, 8])
    found = compare_speculative(model, copy.deepcopy(model), tokenizer, SENTENCES, draft_tokens, turns=1)
    assert found.equal == 3
    assert found.tokens < 39
    assert 0 < found.accepted == found.drafted


def test_drafts_count_up_to_the_first_that_is_not_the_models_own():
    assert accepted_drafts([[5, 6, 7], [9, 9], []], [0, 5, 6, 8, 9, 4, 2]) == 2 + 1
    assert accepted_drafts([[5, 6], [7, 2, 3]], [0, 5, 6, 8, 2]) == 2  # what is drafted behind a wrong token is not


def test_a_draft_that_is_always_wrong_costs_a_check_a_token_and_changes_nothing(pair):
    model, tokenizer = pair
    wrong = copy.deepcopy(model)
    with torch.no_grad():
        wrong.lm_head.weight = torch.nn.Parameter(-model.lm_head.weight)
    found = compare_speculative(model, wrong, tokenizer, SENTENCES, draft_tokens=3, turns=1)
    assert (found.equal, found.checks, found.acceptance) == (3, 39, 0)


def test_the_model_alone_is_timed_with_the_incremental_decoder_and_without(pair, monkeypatch):
    model, tokenizer = pair
    made, ways = [], []
    monkeypatch.setattr(decoding, "IncrementalDecoder", lambda *args: made.append(1) or IncrementalDecoder(*args))

    def record(programs, *args, **options):
        for name, program in programs.items():
            made.clear()
            ways.append((name, program(), len(made)))
        return {name: [1.0] for name in programs}

    monkeypatch.setattr(speculative, "in_turns", record)
    compare_speculative(model, copy.deepcopy(model), tokenizer, SENTENCES)
    assert [(name, count) for name, _, count in ways] == [("plain", 3), ("loop", 0), ("assisted", 0)]
    assert ways[0][1] == ways[1][1] == ways[2][1]
    assert not model.get_decoder()._forward_hooks


def test_acceptance_and_speed_follow_from_what_was_counted():
    found = SpeculativeComparison(4, 400, 200, 300, 100, [2.0, 4.0, 3.0], [5.0], [2.0, 2.0, 9.0], 10, 10)
    assert (found.tokens_per_check, found.acceptance, found.speedup) == (3.0, 0.5, 1.5)


def test_another_vocabulary_is_refused(pair):
    model, tokenizer = pair
    other = copy.deepcopy(model)
    other.resize_token_embeddings(300)
    with pytest.raises(ValueError, match="260 tokens and the draft 300"):
        compare_speculative(model, other, tokenizer, SENTENCES)
    with pytest.raises(ValueError, match="no sentences"):
        compare_speculative(model, model, tokenizer, [])


def test_the_help_trains_a_draft_that_differs_from_the_shipped_model_in_layers_only(monkeypatch):
    monkeypatch.chdir(PROJECT)
    (command,) = re.findall(r"vanilla-transformer pretrain (.+?)\n  vanilla", lab_speculative.EXAMPLES, re.DOTALL)
    args = parse_arguments(shlex.split(command.replace("\\\n", " ")))
    shipped = VanillaTransformerConfig.from_pretrained("model_cards/multi30k-de-en-tiny")
    overrides = {**parse_overrides(args.config_overrides), "vocab_size": shipped.vocab_size}
    draft = VanillaTransformerConfig.from_preset(args.preset, **overrides)
    given = draft.to_diff_dict() | shipped.to_diff_dict()
    differing = {name for name in given if getattr(draft, name, None) != getattr(shipped, name, None)}
    of_the_file = {"architectures", "auto_map", "dtype", "transformers_version", "_name_or_path", "model_type"}
    assert differing - of_the_file == {"num_encoder_layers", "num_decoder_layers", "dropout"}
    assert args.tokenizer_name_or_path == "model_cards/multi30k-de-en-tiny"


def test_the_verb_prints_a_line_for_each_number_of_drafted_tokens(tmp_path):
    for name in ("model", "draft"):
        save_translator(tmp_path / name, max_extra_tokens=2)
    (tmp_path / "x.en").write_text("a b\n\nA B C\n")
    options = [
        "--model",
        tmp_path / "model",
        "--draft",
        tmp_path / "draft",
        "--file",
        tmp_path / "x.en",
        "--turns",
        "1",
    ]
    done = run(lab_speculative.main, *options, "--draft_tokens", "2", "4")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ["2", "4"]
    assert {row[-1].strip() for row in rows} == {"2 of 2"}
    assert run(lab_speculative.main, *options, "--draft_tokens", "0").returncode == 2
