"""Recurrent models as models of transformers: loss, gradients, generate(), saving, and training by our Trainer."""

import itertools
import json

import pytest
import torch
import torch.nn.functional as F
from commanding import run
from training_runs import arguments, write_text
from transformers import AutoModelForSeq2SeqLM, DynamicCache, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput

from hf_vanilla_transformer.commands import evaluate, translate
from hf_vanilla_transformer.inference import load_tokenizer, load_translator
from hf_vanilla_transformer.lab.recurrent import RecurrentForConditionalGeneration
from hf_vanilla_transformer.lab.recurrent_configuration import RECURRENT_PRESETS, RecurrentConfig
from hf_vanilla_transformer.modeling_compatibility import CACHE
from hf_vanilla_transformer.training import pretrain
from hf_vanilla_transformer.training.model_setup import build_model

MODEL_CLASS = "hf_vanilla_transformer.lab.recurrent:RecurrentForConditionalGeneration"
EOS = 2
# Every way to wire a model, each with one of the cells.
WIRED = [
    {"cell": "rnn", "attention": "multiplicative", "num_layers": 1},
    {"cell": "gru", "attention": "none"},
    {"cell": "gru", "attention": "additive"},
    {"cell": "lstm", "attention": "multiplicative"},
    {"cell": "lstm", "attention": "additive", "stack": "gnmt", "num_layers": 3},
    {"cell": "gru", "attention": "multiplicative", "attention_feeds_back": True, "num_layers": 1},
]
wired = pytest.mark.parametrize("fields", WIRED, ids=lambda each: "-".join(map(str, each.values())))


def built(fields, **more):
    config = RecurrentConfig(**{"vocab_size": 12, "d_model": 16, "dropout": 0.1, **fields, **more})
    model = RecurrentForConditionalGeneration(config).double().eval()
    for weight in model.parameters():  # larger than in training, so that translations differ
        weight.data *= 2
    return model


def source():
    ids = torch.tensor([[5, 6, 7, 8, EOS], [9, 10, EOS, 1, 1], [4, EOS, 1, 1, 1]])
    return {"input_ids": ids, "attention_mask": ids.ne(1).long()}


def logits_after(model, inputs, row, prefix):
    """Of the token after a prefix, computed for one sentence alone, without padding and without a state."""
    ids = inputs["input_ids"][row : row + 1, : int(inputs["attention_mask"][row].sum())]
    return model(input_ids=ids, decoder_input_ids=torch.tensor([prefix]), use_cache=False).logits[0, -1]


@wired
def test_greedy_decoding_is_the_most_probable_token_again_and_again(fields):
    model, inputs = built(fields), source()
    for cache in (True, False):
        found = model.generate(**inputs, num_beams=1, max_new_tokens=5, use_cache=cache)
        for row, ids in enumerate(found.tolist()):
            prefix = [0]
            while len(prefix) < 6 and prefix[-1] != EOS:
                prefix.append(int(logits_after(model, inputs, row, prefix).argmax()))
            assert ids[: len(prefix)] == prefix
            assert set(ids[len(prefix) :]) <= {1}


@wired
def test_beam_search_is_that_of_transformers_and_a_state_changes_nothing(fields):
    model, inputs = built(fields), source()
    plain = {"length_penalty": 1.0, "max_new_tokens": 5, "num_beams": 3, "early_stopping": True}
    plain |= {"return_dict_in_generate": True, "output_scores": True}
    ours = model.generate(**inputs, **plain)
    without = model.generate(**inputs, **plain, use_cache=False)
    assert torch.equal(ours.sequences, without.sequences)
    torch.testing.assert_close(ours.sequences_scores, without.sequences_scores)

    class Plain(RecurrentForConditionalGeneration):
        _beam_search = GenerationMixin._beam_search

    other = Plain(model.config).double().eval()
    other.load_state_dict(model.state_dict())
    theirs = other.generate(**inputs, **plain)
    assert torch.equal(ours.sequences, theirs.sequences)
    torch.testing.assert_close(ours.sequences_scores.float(), theirs.sequences_scores.float())


def test_a_search_with_as_many_beams_as_sentences_finds_the_most_probable_one():
    """Brute force over all translations of up to three tokens, with no length penalty."""
    model, inputs = built(WIRED[3], vocab_size=5), {"input_ids": torch.tensor([[3, 4, EOS]])}
    best = (-float("inf"), None)
    for length in (1, 2, 3):
        for body in itertools.product([0, 1, 3, 4], repeat=length - 1):
            for end in [EOS] if length < 3 else range(5):
                ids = torch.tensor([[0, *body, end]])
                log_probs = model(**inputs, decoder_input_ids=ids[:, :-1]).logits.log_softmax(-1)
                total = log_probs.gather(-1, ids[:, 1:, None]).sum().item()
                best = max(best, (total, ids[0].tolist()))
    found = model.generate(**inputs, num_beams=64, max_new_tokens=3, gnmt_length_penalty=0.0)
    assert found[0].tolist() == best[1]


@wired
def test_a_target_in_parts_has_the_logits_of_the_whole(fields):
    model, inputs = built(fields), source()
    target = torch.randint(3, 12, (3, 6))
    whole = model(**inputs, decoder_input_ids=target)
    first = model(**inputs, decoder_input_ids=target[:, :2], use_cache=True)
    second = model(**inputs, decoder_input_ids=target[:, 2:], use_cache=True, cache=first[CACHE])
    torch.testing.assert_close(torch.cat([first.logits, second.logits], dim=1), whole.logits)
    assert second[CACHE].get_seq_length() == 6


@wired
def test_sentences_alone_or_padded_on_either_side_have_the_same_logits(fields):
    model, inputs = built(fields), source()
    target = torch.randint(3, 12, (3, 4))
    padded = model(**inputs, decoder_input_ids=target).logits
    left = {name: tensor.clone() for name, tensor in inputs.items()}
    for row, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        for name in left:
            left[name][row] = inputs[name][row].roll(5 - length)
        alone = model(input_ids=inputs["input_ids"][row : row + 1, :length], decoder_input_ids=target[row : row + 1])
        torch.testing.assert_close(alone.logits[0], padded[row])
    torch.testing.assert_close(model(**left, decoder_input_ids=target).logits, padded)


@wired
def test_the_loss_is_label_smoothed_cross_entropy_and_its_gradient_is_right(fields):
    model, inputs = built(fields, d_model=4, dropout=0.0), source()
    labels = torch.tensor([[5, 6, EOS], [7, EOS, -100], [EOS, -100, -100]])
    logits = model(**inputs, decoder_input_ids=torch.tensor([[0, 5, 6], [0, 7, 2], [0, 2, 1]])).logits
    kept = labels != -100
    expected = F.cross_entropy(logits[kept], labels[kept])
    evaluated = model(**inputs, labels=labels)
    torch.testing.assert_close(evaluated.loss, expected)
    torch.testing.assert_close(model(**inputs, labels=labels, return_logits=False).nll_loss, expected)
    model.train()
    smoothed = F.cross_entropy(logits[kept], labels[kept], label_smoothing=0.1)
    torch.testing.assert_close(model(**inputs, labels=labels).loss, smoothed)
    halved = model(**inputs, labels=labels, num_items_in_batch=2 * int(kept.sum())).loss
    torch.testing.assert_close(halved, smoothed / 2)
    halved.backward()
    for name, weight in model.named_parameters():
        place = int(weight.grad.abs().argmax())
        changed = weight.detach().flatten()
        losses = []
        for step in (1e-6, -2e-6):
            changed[place] += step
            losses.append(model(**inputs, labels=labels, num_items_in_batch=2 * int(kept.sum())).loss.item())
        changed[place] += 1e-6
        numeric = (losses[0] - losses[1]) / 2e-6
        assert float(weight.grad.flatten()[place]) == pytest.approx(numeric, rel=1e-5, abs=1e-9), name


def test_attention_is_returned_where_there_is_any():
    inputs, target = source(), torch.tensor([[0, 5], [0, 6], [0, 7]])
    (weights,) = built(WIRED[2])(**inputs, decoder_input_ids=target, output_attentions=True).cross_attentions
    assert weights.shape == (3, 1, 2, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 1, 2).double())
    assert not weights.masked_select(inputs["attention_mask"].eq(0)[:, None, None].expand_as(weights)).any()
    with pytest.raises(ValueError, match="a model with `attention`='none' attends to nothing"):
        built(WIRED[1])(**inputs, decoder_input_ids=target, output_attentions=True)


def test_what_has_no_meaning_for_a_state_is_refused():
    model, inputs = built(WIRED[2]), source()
    target = torch.tensor([[1, 5], [0, 6], [0, 7]])
    for mask in ([[0, 1]] + [[1, 1]] * 2, [[0, 0]] + [[1, 1]] * 2):
        with pytest.raises(ValueError, match="has padding before a token"):
            model(**inputs, decoder_input_ids=target, decoder_attention_mask=torch.tensor(mask))
    whole = model(**inputs, decoder_input_ids=target).logits
    padded = model(**inputs, decoder_input_ids=target, decoder_attention_mask=torch.tensor([[1, 0], [1, 1], [1, 1]]))
    torch.testing.assert_close(padded.logits, whole)
    with pytest.raises(ValueError, match="without the encoder's final state"):
        model(encoder_outputs=BaseModelOutput(torch.zeros(3, 5, 16)), decoder_input_ids=target)
    with pytest.raises(ValueError, match="`cache` is a DynamicCache"):
        model(**inputs, decoder_input_ids=target, cache=DynamicCache())
    with pytest.raises(ValueError, match="cache_implementation='static'"):
        model.generate(**inputs, cache_implementation="static")
    with pytest.raises(ValueError, match="stateful"):
        model.generate(**inputs, assistant_model=model, num_beams=1)
    with pytest.raises(ValueError, match="give the decoder `decoder_input_ids` or `labels`"):
        model(**inputs)
    with pytest.raises(TypeError, match="does not know `inputs_embeds`"):
        model(inputs_embeds=torch.zeros(1, 2, 16), decoder_input_ids=target)
    with pytest.raises(ValueError, match=r"r_drop=0\.5 is part of a loss"):
        model(**inputs, decoder_input_ids=target, r_drop=0.5)


def test_a_translation_can_be_continued_with_its_state():
    model, inputs = built(WIRED[4], eos_token_id=None), source()
    whole = model.generate(**inputs, num_beams=1, max_new_tokens=6)
    begun = model.generate(**inputs, num_beams=1, max_new_tokens=3, return_dict_in_generate=True)
    assert begun[CACHE].get_seq_length() == 3
    rest = model.generate(
        **inputs, decoder_input_ids=begun.sequences, num_beams=1, max_new_tokens=3, **{CACHE: begun[CACHE]}
    )
    assert torch.equal(rest, whole)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_is_loaded_by_the_auto_class(tied, tmp_path):
    model, inputs = built(WIRED[4], tie_word_embeddings=tied), source()
    model.generation_config.gnmt_length_penalty = 1.2
    model.decoder.lowest.bias_ih.data.fill_(0.25)  # as if it had learned
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is RecurrentForConditionalGeneration
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.generation_config.gnmt_length_penalty == 1.2
    assert (loaded.decoder.lowest.bias_ih == 0.25).all()
    target = torch.randint(3, 12, (3, 4))
    torch.testing.assert_close(loaded(**inputs, labels=target).logits, model(**inputs, labels=target).logits)
    matrices = {loaded.lm_head.weight, loaded.encoder.embed_tokens.weight, loaded.decoder.embed_tokens.weight}
    assert len({id(matrix) for matrix in matrices}) == (1 if tied else 3)
    if tied:
        loaded.resize_token_embeddings(15)
        assert loaded(**inputs, labels=target).logits.shape[-1] == 15
        assert loaded.decoder.embed_tokens.weight is loaded.lm_head.weight
    else:
        with pytest.raises(ValueError, match="only a recurrent model with one matrix can be resized"):
            loaded.resize_token_embeddings(15)


@pytest.mark.parametrize(("given", "expected"), [(None, 1.0), (0, 0.0), (2.5, 2.5)])
def test_initial_weights_have_the_bounds_of_torch_but_for_forget_gates(given, expected):
    config = RecurrentConfig(vocab_size=50, d_model=64, attention="additive", forget_bias=given)
    model = RecurrentForConditionalGeneration(config)
    layers = [*model.encoder.layers, model.decoder.lowest, *model.decoder.layers]
    for layer in layers:
        for name, weight in layer.named_parameters():
            gates = weight.detach().unflatten(0, (4, -1))  # input, forget, cell, output
            if "bias" in name:
                assert (gates[1] == (expected if "bias_ih" in name else 0)).all(), name
                gates = gates[[0, 2, 3]]
            assert 0.9 * layer.hidden_size**-0.5 < float(gates.abs().max()) <= layer.hidden_size**-0.5, name
    assert sum("bias" in name for layer in layers for name, _ in layer.named_parameters()) == 2 * (2 * 2 + 2)
    assert float(model.lm_head.weight.std()) == pytest.approx(64**-0.5, rel=0.1)
    assert not model.decoder.attention.key_proj.bias.any()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.mark.slow
def test_our_trainer_trains_it_and_the_verbs_take_it(text, tmp_path):
    """Trains a tiny model, in three seconds."""
    options = {"model_class": MODEL_CLASS, "preset": "recurrent_additive"}
    options |= {"config_overrides": ["d_model=16", "num_layers=1", "cell=gru"]}
    options |= {"learning_rate": 0.02, "num_train_epochs": 3, "max_tokens": 128, "eval_strategy": "no"}
    result = pretrain(arguments(text, tmp_path / "run", **options, save_strategy="no"))
    losses = [entry["nll"] for entry in result.history if "nll" in entry]
    assert losses[-1] < 0.8 * losses[0]
    assert result.metrics["final_loss"] > 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model_type"] == "recurrent_seq2seq"
    folder = str(tmp_path / "run")
    done = run(translate.main, "--model", folder, "--device", "cpu", "--num_beams", 2, "red dog", "a tree")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    done = run(
        evaluate.main,
        *("--model", folder, "--test_set", text / "val.jsonl", "--metrics", "bleu", "--num_resamples", 0),
        *("--by_length", 2, 4, "--device", "cpu"),
    )
    assert done.returncode == 0
    assert "perplexity" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[-3:]] == ["0-2", "3-4", "5"]
    with pytest.raises(ValueError, match="is a recurrent_seq2seq model, and only Transformers decode together"):
        load_translator([folder, folder], "cpu")
    more = arguments(text, tmp_path / "more", model_name_or_path=folder, config_overrides=[])
    with pytest.raises(ValueError, match="is a recurrent_seq2seq model, and no Transformer of this package"):
        build_model(more, load_tokenizer(folder))


@pytest.mark.slow
@pytest.mark.parametrize("preset", RECURRENT_PRESETS)
def test_every_preset_learns_to_turn_sentences_round(preset, tmp_path):
    """Trains for half a minute each; the fixed vector suffices for such short sentences."""
    text = write_text(tmp_path, pairs=2000)
    options = {"model_class": MODEL_CLASS, "preset": preset, "config_overrides": ["d_model=64", "num_layers=2"]}
    options |= {
        "final_weights": "last",
        "learning_rate": 5e-3,
        "warmup_steps": 50,
        "num_train_epochs": 25,
        "max_tokens": 1024,
    }
    result = pretrain(arguments(text, tmp_path / "run", **options, eval_strategy="no", save_strategy="no"))
    assert result.metrics["final_loss"] < 0.7
