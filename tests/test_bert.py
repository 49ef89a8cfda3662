"""BERT folders in: hidden states and logits against transformers' own models with random weights."""

import json

import pytest
import torch
from parity import assert_near, random_lengths, randomise
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertTokenizer,
)

from hf_vanilla_transformer.commands.convert import main
from hf_vanilla_transformer.interop import load_bert, load_bert_tokenizer

V, PAD = 31, 0
B, S = 4, 9
TOLERANCE = 1e-5

# Theirs, and the Auto class by which the converted folder loads.
KINDS = {
    BertModel: AutoModel,
    BertForMaskedLM: AutoModelForMaskedLM,
    BertForPreTraining: AutoModelForMaskedLM,
    BertForSequenceClassification: AutoModelForSequenceClassification,
    BertForTokenClassification: AutoModelForTokenClassification,
}


def bert(folder, kind=BertForMaskedLM, seed=0, **options):
    """A random BERT and the folder it was saved in; no weight is at a value that could go unnoticed."""
    shape = {
        "vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
        "max_position_embeddings": 12, "pad_token_id": PAD, "num_labels": 3,
    }  # fmt: skip
    model = kind(BertConfig(**{**shape, **options})).eval()
    randomise(model, seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(generator=torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    return model


def batch(seed=0):
    """Texts of two sentences and several lengths, padded on the right, where BERT counts positions as ours does."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, V, (B, S), generator=generator)
    types = torch.zeros(B, S, dtype=torch.long)
    for row, length in enumerate(random_lengths(B, S, generator)):
        ids[row, length:], types[row, length // 2 : length] = PAD, 1
    return {"input_ids": ids, "attention_mask": ids.ne(PAD).long(), "token_type_ids": types}


def answer(model, inputs):
    outputs = model(**inputs)
    return outputs.prediction_logits if "prediction_logits" in outputs else outputs[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_states_and_logits_are_those_of_bert_also_after_saving(kind, attention, tmp_path):
    theirs, inputs = bert(tmp_path / "bert", kind), batch()
    expected, is_token = answer(theirs, inputs), inputs["attention_mask"].bool()
    ours = load_bert(tmp_path / "bert")
    ours.save_pretrained(tmp_path / "ours")
    for model in (ours, KINDS[kind].from_pretrained(tmp_path / "ours")):
        assert type(model) is type(ours)
        model.set_attn_implementation(attention)
        actual = answer(model, inputs)
        if actual.dim() == 3:  # states of padding, which nobody reads
            actual, wanted = actual[is_token], expected[is_token]
        else:
            wanted = expected
        assert_near(actual, wanted, TOLERANCE, kind.__name__)


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertForTokenClassification, BertForMaskedLM])
def test_losses_and_gradients_are_those_of_bert(kind, tmp_path):
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    theirs = bert(tmp_path, kind, **options).train()
    ours, inputs = load_bert(tmp_path).train(), batch()
    shape = (B,) if kind is BertForSequenceClassification else (B, S)
    labels = torch.randint(3, shape, generator=torch.Generator().manual_seed(5))
    if len(shape) == 2:
        labels[inputs["attention_mask"] == 0] = -100
    losses = [model(**inputs, labels=labels).loss for model in (ours, theirs)]
    assert_near(*losses, TOLERANCE, "loss")
    for loss in losses:
        loss.backward()
    # Of words, whose matrix is also the projection; and of positions, at the far end of the model.
    assert_near(
        ours.model.encoder.embed_positions.weight.grad,
        theirs.bert.embeddings.position_embeddings.weight.grad,
        TOLERANCE,
        "gradient of positions",
    )
    is_word = torch.arange(V) != PAD  # BERT does not train the embedding of padding, as long as nothing predicts it
    assert_near(
        ours.get_input_embeddings().weight.grad[is_word],
        theirs.get_input_embeddings().weight.grad[is_word],
        TOLERANCE,
        "gradient of words",
    )


@pytest.mark.parametrize(
    "options",
    [
        {"tie_word_embeddings": False},
        {"type_vocab_size": 3, "hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
        {"id2label": {0: "no", 1: "yes"}, "classifier_dropout": 0.25, "hidden_dropout_prob": 0.3},
    ],
    ids=["untied", "shape", "labels"],
)
@torch.no_grad()
def test_other_configurations_of_bert(options, tmp_path):
    kind = BertForSequenceClassification if "id2label" in options else BertForMaskedLM
    if "id2label" in options:
        options = {**options, "num_labels": 2}
    theirs, inputs = bert(tmp_path, kind, seed=3, **options), batch()
    ours = load_bert(tmp_path)
    is_token = inputs["attention_mask"].bool() if kind is BertForMaskedLM else slice(None)
    assert_near(ours(**inputs).logits[is_token], theirs(**inputs).logits[is_token], TOLERANCE, "logits")
    assert ours.config.id2label == theirs.config.id2label
    assert ours.config.classifier_dropout == theirs.config.classifier_dropout
    assert ours.config.dropout == theirs.config.hidden_dropout_prob


def test_a_part_without_a_place_is_named_and_left_out(tmp_path, package_log):
    bert(tmp_path / "base", BertModel)
    bert(tmp_path / "pretrained", BertForPreTraining)
    bert(tmp_path / "masked", BertForMaskedLM)
    load_bert(tmp_path / "masked")
    assert "left out" not in package_log.text
    load_bert(tmp_path / "base")
    assert "the pooler of this BertModel has no place here, and is left out" in package_log.text
    load_bert(tmp_path / "pretrained")
    assert "the pooler and the head for next sentences of this BertForPreTraining" in package_log.text


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertForTokenClassification])
@torch.no_grad()
def test_weights_of_pretraining_that_a_class_has_no_use_for_are_left_out(kind, tmp_path, package_log):
    """As on the Hub: bert-base-uncased is a BertForPreTraining, and its config says BertForMaskedLM."""
    pretrained = bert(tmp_path, BertForPreTraining)
    if kind is BertForTokenClassification:
        tensors = load_file(tmp_path / "model.safetensors")
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("cls.")}
        tensors |= {"classifier.weight": torch.randn(3, 16), "classifier.bias": torch.randn(3)}
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    changed(tmp_path, architectures=[kind.__name__])
    theirs, inputs = kind.from_pretrained(tmp_path).eval(), batch()
    is_token = inputs["attention_mask"].bool()
    logits = load_bert(tmp_path)(**inputs).logits[is_token]
    assert_near(logits, theirs(**inputs).logits[is_token], TOLERANCE, "logits")
    if kind is BertForMaskedLM:
        assert_near(logits, answer(pretrained, inputs)[is_token], TOLERANCE, "logits of pre-training")
        assert "the pooler and the head for next sentences of this BertForMaskedLM" in package_log.text
    else:
        assert "the pooler of this BertForTokenClassification" in package_log.text


def test_names_of_the_first_checkpoints_are_understood(tmp_path):
    theirs = bert(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    old["bert.embeddings.position_ids"] = torch.arange(12)[None]
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with torch.no_grad():
        assert_near(load_bert(tmp_path)(**batch()).logits[0], theirs(**batch()).logits[0], TOLERANCE, "logits")


def changed(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"position_embedding_type": "relative_key"}, r"position_embedding_type='relative_key'.*allowed: 'absolute'"),
        ({"is_decoder": True}, "is_decoder=True has no counterpart"),
        ({"add_cross_attention": True}, "add_cross_attention=True has no counterpart"),
        ({"model_type": "albert"}, "'albert'; only 'bert'"),
        ({"architectures": ["BertForQuestionAnswering"]}, "a BertForQuestionAnswering; only BertModel"),
        ({"intermediate_size": 25}, r"does not fit.*intermediate\.dense"),
        ({"hidden_act": "gelo"}, "gelo.*did you mean `gelu`"),
        ({"hidden_size": "wide"}, r"config\.json: .*hidden_size"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_field_can_say_is_refused_by_name(values, said, tmp_path):
    bert(tmp_path)
    changed(tmp_path, **values)
    with pytest.raises(ValueError, match=said):
        load_bert(tmp_path)


def test_a_model_for_another_task_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        load_bert(tmp_path)
    bert(tmp_path, BertForMultipleChoice)
    with pytest.raises(ValueError, match="describes a BertForMultipleChoice"):
        load_bert(tmp_path)


def save_tokenizer(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "runs", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


@torch.no_grad()
def test_the_command_converts_a_folder_with_its_tokenizer(tmp_path, capsys):
    theirs = bert(tmp_path / "bert")
    assert load_bert_tokenizer(tmp_path / "bert") is None
    save_tokenizer(tmp_path / "bert")
    assert main(["bert", str(tmp_path / "bert"), "--output_dir", str(tmp_path / "ours")]) == 0
    assert "Converted:" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours")
    expected = BertTokenizer.from_pretrained(tmp_path / "bert")
    inputs = tokenizer("a dog [MASK]", "dogs", return_tensors="pt")
    assert inputs["input_ids"].tolist() == expected("a dog [MASK]", "dogs", return_tensors="pt").input_ids.tolist()
    assert inputs["token_type_ids"].any()
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "ours")
    assert_near(model(**inputs).logits, theirs(**inputs).logits, TOLERANCE, "logits")
    changed(tmp_path / "bert", is_decoder=True)
    assert main(["bert", str(tmp_path / "bert"), "--output_dir", str(tmp_path / "other")]) == 2
    assert "is_decoder=True" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
