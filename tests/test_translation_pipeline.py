"""The pipeline: against `generate()` on one sentence at a time, and in a process without the package."""

import copy
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from datasets import Dataset
from test_remote_code import PACKAGE_IS_MISSING
from test_translation_scoring import marian
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BertConfig, BertModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_vanilla_transformer import (
    TranslationPipeline,
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
)
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration
from hf_vanilla_transformer.publishing import save_self_contained

SENTENCES = ["a b c", "", "a", " \t", "c b a a b c a b c", "b b b b"]


def build(vocab_size, seed=1, **fields):
    torch.manual_seed(seed)
    shape = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 2}
    model = VanillaTransformerForConditionalGeneration(
        VanillaTransformerConfig(vocab_size=vocab_size, **{**shape, **fields})
    )
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a b c", "A B C"], vocab_size=262)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build(len(tokenizer))


@pytest.fixture(scope="module")
def translator(model, tokenizer):
    return TranslationPipeline(model=model, tokenizer=tokenizer, device="cpu")


def generated(model, tokenizer, sentence, **options):
    ids = model.generate(**tokenizer(sentence, return_tensors="pt"), **options)
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def expected(model, tokenizer, sentence, **options):
    texts = generated(model, tokenizer, sentence, **options) if sentence.strip() else [""]
    return [{"translation_text": text} for text in texts]


def test_shapes_are_those_of_the_pipeline_that_transformers_had(translator, model, tokenizer):
    wanted = [expected(model, tokenizer, sentence) for sentence in SENTENCES]
    assert translator("a b c") == wanted[0]
    assert translator(SENTENCES) == translator(tuple(SENTENCES)) == [one for (one,) in wanted]
    assert translator([]) == []
    assert translator(["a b c"]) == wanted[0]
    assert len({one["translation_text"] for (one,) in wanted}) > 3
    two = translator(["a b c", "a"], num_return_sequences=2)
    assert two == [expected(model, tokenizer, sentence, num_return_sequences=2) for sentence in ("a b c", "a")]
    assert translator("", num_return_sequences=2) == [{"translation_text": ""}] * 2


@pytest.mark.parametrize("sentence", ["<2de> a </s> b <pad>", "<2de><s><unk>c"])
def test_tags_are_one_token_and_what_looks_like_a_control_token_is_text(model, tokenizer, sentence, monkeypatch):
    tokenizer, asked = copy.deepcopy(tokenizer), []
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    # As if the model said its source: it has no row for the tag.
    monkeypatch.setattr(model, "generate", lambda input_ids, **_: asked.append(input_ids[0].tolist()) or input_ids)
    said = TranslationPipeline(model=model, tokenizer=tokenizer, device="cpu")(sentence)
    assert said == [{"translation_text": sentence.removeprefix("<2de>")}]
    (ids,) = asked
    assert [ids[0], ids[-1]] == tokenizer.convert_tokens_to_ids(["<2de>", "</s>"])
    assert not {0, 1, 2, 3, ids[0]} & set(ids[1:-1])


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_datasets_columns_and_generators_are_streamed(translator, model, tokenizer, batch_size):
    wanted = [expected(model, tokenizer, sentence, num_beams=2) for sentence in SENTENCES]
    rows = Dataset.from_dict({"en": SENTENCES, "id": list(range(6))})
    inputs = [
        rows["en"],
        KeyDataset(rows, "en"),
        rows.select_columns("en"),
        rows.select_columns("en").to_iterable_dataset(),
        (sentence for sentence in SENTENCES),
        iter(SENTENCES),
    ]
    for each in inputs:
        results = translator(each, batch_size=batch_size, num_beams=2)
        assert not isinstance(results, list)
        assert list(results) == wanted
    assert len(translator(KeyDataset(rows, "en"))) == len(translator(rows["en"])) == 6


def test_a_generator_is_read_as_far_as_is_needed(translator):
    read = []
    results = iter(translator((read.append(i) or "a" for i in range(100)), batch_size=3, max_new_tokens=1))
    next(results)
    assert len(read) <= 4


def test_blank_sentences_are_not_asked_for(translator, model, monkeypatch):
    monkeypatch.setattr(model, "generate", None)
    assert translator(["", "  ", "\u2003"], batch_size=2) == [{"translation_text": ""}] * 3
    details = translator("", return_scores=True, return_alignments=True)
    assert details == [
        {"translation_text": "", "score": 0.0, "log_prob": 0.0, "source_tokens": [], "tokens": [], "alignment": []}
    ]


def test_options_come_from_the_call_the_pipeline_or_the_generation_config(model, tokenizer):
    text = "c b a a b c a b c"
    never = {"bad_words_ids": [[tokenizer.eos_token_id]]}
    translator = TranslationPipeline(model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=7, **never)
    assert translator(text) == expected(model, tokenizer, text, max_new_tokens=7, **never)
    assert translator(text, max_new_tokens=3) == expected(model, tokenizer, text, max_new_tokens=3, **never)
    greedy = expected(model, tokenizer, text, num_beams=1, max_new_tokens=7, **never)
    assert translator(text, num_beams=1) == greedy
    with pytest.raises(ValueError, match="num_beems"):
        translator(text, num_beems=1)


def test_the_model_is_used_in_eval_mode(tokenizer):
    model = build(len(tokenizer), dropout=0.5).train()
    translator = TranslationPipeline(model=model, tokenizer=tokenizer, device="cpu")
    assert len({str(translator("a b c a")) for _ in range(5)}) == 1
    model.train()
    with pytest.raises(ValueError, match="is in training mode"):
        translator("a b c a")


DETAILS = {"return_scores": True, "return_alignments": True}


@pytest.mark.parametrize("options", [DETAILS, pytest.param({}, marks=pytest.mark.slow)])  # 4 seconds
def test_threads_that_share_a_pipeline_get_what_one_gets(tokenizer, options):
    """A model that was in train mode, sixteen threads: nobody's request changes anybody's answer, nor the model."""
    model = build(len(tokenizer), dropout=0.5).train()
    translator = TranslationPipeline(model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=6, **options)
    sentences = ["a b c a", "b a", "c c c b a", "a"]
    expected = {sentence: translator(sentence) for sentence in sentences}
    implementation = model.config._attn_implementation
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(translator, sentences * 24))
    for sentence, answer in zip(sentences * 24, answers, strict=True):
        for field in ("translation_text", "alignment"):
            assert [each.get(field) for each in answer] == [each.get(field) for each in expected[sentence]]
    assert model.config._attn_implementation == implementation == "sdpa"
    assert not any(part.training for part in model.modules())


@torch.no_grad()
def score_of(model, tokenizer, source, ids, alpha=0.6):
    """Score and log-probability of a translation, ids that end with </s>, one prefix after the other."""
    inputs, total = tokenizer(source, return_tensors="pt"), 0.0
    for place, token in enumerate(ids):
        prefix = torch.tensor([[model.config.decoder_start_token_id, *ids[:place]]])
        logits = model(**inputs, decoder_input_ids=prefix, use_cache=False).logits[0, -1]
        total += logits.double().log_softmax(-1)[token].item()
    return total / ((5 + len(ids)) / 6) ** alpha, total


@pytest.mark.parametrize("kind", ["model", "ensemble"])
def test_scores_are_those_of_forced_decoding(model, tokenizer, kind):
    if kind == "ensemble":
        model = EnsembleForConditionalGeneration([model, build(len(tokenizer), seed=2, d_model=24)]).eval()
    translator = TranslationPipeline(model=model, tokenizer=tokenizer, device="cpu")
    sentences = ["a b c", "a", "c c b a c b c"]
    results = translator(sentences, batch_size=3, return_scores=True, num_return_sequences=3, max_new_tokens=8)
    for sentence, translations in zip(sentences, results, strict=True):
        sequences = model.generate(
            **tokenizer(sentence, return_tensors="pt"), num_return_sequences=3, max_new_tokens=8,
            return_dict_in_generate=True,
        )  # fmt: skip
        assert [each["score"] for each in translations] == sorted((e["score"] for e in translations), reverse=True)
        for row, translation in enumerate(translations):
            ids = sequences.sequences[row, 1:][sequences.beam_indices[row] >= 0].tolist()
            assert translation["translation_text"] == tokenizer.decode(ids, skip_special_tokens=True)
            score, log_prob = score_of(model, tokenizer, sentence, ids)
            assert translation["score"] == pytest.approx(score, abs=1e-5)
            assert translation["log_prob"] == pytest.approx(log_prob, abs=1e-5)
    (greedy,) = translator("a b c", num_beams=1, return_scores=True, max_new_tokens=8)
    ids = model.generate(**tokenizer("a b c", return_tensors="pt"), num_beams=1, max_new_tokens=8)[0, 1:].tolist()
    log_prob = score_of(model, tokenizer, "a b c", ids)[1]
    assert (greedy["score"], greedy["log_prob"]) == pytest.approx((log_prob, log_prob), abs=1e-5)


def test_scores_of_marian_are_those_of_forced_decoding_by_its_own_penalty(tokenizer):
    model = marian()
    model.resize_token_embeddings(len(tokenizer))
    model.eval()
    torch.nn.init.normal_(model.model.shared.weight, std=0.5)
    model.generation_config.forced_eos_token_id = None  # what is forced has score 0, whatever its probability
    options = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 8, "length_penalty": 0.7}
    translator = TranslationPipeline(model=model, tokenizer=tokenizer, device="cpu")
    results = translator(["a b c", "a"], batch_size=2, return_scores=True, return_tokens=True, **options)
    for sentence, translations in zip(["a b c", "a"], results, strict=True):
        output = model.generate(**tokenizer(sentence, return_tensors="pt"), **options, return_dict_in_generate=True)
        for ids, translation in zip(output.sequences[:, 1:].tolist(), translations, strict=True):
            end = ids.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in ids else len(ids)
            log_prob = score_of(model, tokenizer, sentence, ids[:end])[1]
            assert translation["log_prob"] == pytest.approx(log_prob, abs=1e-5)
            assert translation["score"] == pytest.approx(log_prob / end**0.7, abs=1e-5)


@pytest.mark.parametrize("kind", ["model", "ensemble"])
def test_alignments_are_the_argmax_of_the_attention_at_each_step(model, tokenizer, kind):
    models = [model] if kind == "model" else [model, build(len(tokenizer), seed=2, num_decoder_layers=3)]
    used = model if kind == "model" else EnsembleForConditionalGeneration(models).eval()
    translator = TranslationPipeline(model=used, tokenizer=tokenizer, device="cpu")
    sentences = ["a b c c b b a", "a", "c b a"]
    results = translator(sentences, batch_size=3, return_alignments=True, max_new_tokens=8)
    for sentence, translation in zip(sentences, results, strict=True):
        inputs = tokenizer(sentence, return_tensors="pt")
        ids = used.generate(**inputs, max_new_tokens=8)[0, 1:].tolist()
        shown = [token for token in ids if token not in tokenizer.all_special_ids or token == tokenizer.unk_token_id]
        assert translation["tokens"] == tokenizer.convert_ids_to_tokens(shown)
        assert translation["source_tokens"] == tokenizer.tokenize(sentence)
        pairs = []
        for place, token in enumerate(ids):
            if token not in shown:
                continue
            attention = 0.0
            for each in models:
                each.set_attn_implementation("eager")
                prefix = torch.tensor([[0, *ids[:place]]])
                with torch.no_grad():
                    layers = each(**inputs, decoder_input_ids=prefix, output_attentions=True).cross_attentions
                each.set_attn_implementation("sdpa")
                attention = attention + layers[-2][0, :, -1].mean(0)
            pairs.append((int(attention[:-1].argmax()), len(pairs)))  # </s> of the source is no candidate
        assert translation["alignment"] == pairs


def test_a_source_longer_than_the_positions_is_translated_in_pieces(tokenizer):
    model = build(len(tokenizer), position_encoding="learned", max_position_embeddings=12)
    translator = TranslationPipeline(model=model, tokenizer=tokenizer, device="cpu")
    text = "a b. c a"  # 9 tokens at most
    assert translator(text) == expected(model, tokenizer, text)
    first, second = "a b c a b.", "c c c a b a b"
    (whole,) = translator(f"{first} {second}", return_scores=True, return_alignments=True)
    parts = translator([first, second], return_scores=True, return_alignments=True)
    texts = [part["translation_text"].strip() for part in parts]
    assert whole["translation_text"] == " ".join(text for text in texts if text)
    for name in ("source_tokens", "tokens"):
        assert whole[name] == parts[0][name] + parts[1][name]
    for name in ("score", "log_prob"):
        assert whole[name] == pytest.approx(parts[0][name] + parts[1][name], abs=1e-5)
    moved = [(s + len(parts[0]["source_tokens"]), t + len(parts[0]["tokens"])) for s, t in parts[1]["alignment"]]
    assert whole["alignment"] == parts[0]["alignment"] + moved


def test_what_cannot_be_translated_is_named(translator, model, tokenizer):
    for wrong in (5, None, {"en": "a"}):
        with pytest.raises(TypeError, match=str(wrong)):
            translator(wrong)
    with pytest.raises(TypeError, match="5 is a int"):
        translator(["a", 5])
    with pytest.raises(ValueError, match=r"\['en', 'de'\]"):
        list(translator(Dataset.from_dict({"en": ["a"], "de": ["b"]})))
    with pytest.raises(ValueError, match=r"character 2 .*U\+D800"):
        translator("a \ud800")
    with pytest.raises(TypeError, match="'runs/x' is a name"):
        TranslationPipeline(model="runs/x", tokenizer=tokenizer)
    with pytest.raises(TypeError, match="tokenizer=None"):
        TranslationPipeline(model=model)
    encoder = BertModel(BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1, intermediate_size=8))
    with pytest.raises(ValueError, match="BertModel is no sequence-to-sequence model"):
        TranslationPipeline(model=encoder, tokenizer=tokenizer)


def test_repr_says_what_and_where(translator):
    assert repr(translator).startswith("TranslationPipeline(model=VanillaTransformerForConditionalGeneration, ")
    assert "device='cpu'" in repr(translator)


@pytest.mark.parametrize("trust", [None, True, False])
@pytest.mark.parametrize("with_code", [True, False])
def test_by_its_task_where_the_package_is_imported(model, tokenizer, tmp_path, trust, with_code):
    if with_code:
        save_self_contained(model, tmp_path, tokenizer)
    else:
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
    translator = pipeline("translation", model=str(tmp_path), device="cpu", trust_remote_code=trust)
    assert type(translator) is TranslationPipeline
    assert translator(SENTENCES) == TranslationPipeline(model=model, tokenizer=tokenizer, device="cpu")(SENTENCES)


def test_a_saved_pipeline_keeps_its_generation_config_and_has_no_code(model, tokenizer, tmp_path):
    loaded = TranslationPipeline(model=build(len(tokenizer)), tokenizer=tokenizer, device="cpu")
    loaded.model.generation_config.update(num_beams=1, max_new_tokens=5)
    loaded.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    again = pipeline("translation", model=str(tmp_path), device="cpu")
    assert again("a b c c") == expected(model, tokenizer, "a b c c", num_beams=1, max_new_tokens=5)
    assert again("a b c c") != expected(model, tokenizer, "a b c c")


REMOTE = (
    PACKAGE_IS_MISSING
    + """
from transformers import pipeline

folder, again = sys.argv[1:]
sentences = json.load(sys.stdin)
results = []
for place in (folder, again):
    for task in ("translation", None):
        translator = pipeline(task, model=place, trust_remote_code=True, device="cpu")
        assert type(translator).__module__.startswith("transformers_modules."), type(translator)
        assert "custom_pipelines" in repr(translator.model.config)
        plain = translator(sentences, batch_size=2)
        rich = translator(sentences, return_scores=True, return_alignments=True, num_return_sequences=2)
        results.append([plain, rich, list(translator(iter(sentences)))])
    if place == folder:
        translator.save_pretrained(again)
try:
    pipeline("translation", model=folder, trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code=True" in str(error)
print(json.dumps(results))
"""
)


def assert_alike(actual, expected):
    """Another process may place tensors elsewhere, and torch then rounds otherwise."""
    if isinstance(expected, float):
        assert actual == pytest.approx(expected, abs=1e-5)
    elif isinstance(expected, list | dict) and len(actual) == len(expected):
        for key in expected if isinstance(expected, dict) else range(len(expected)):
            assert_alike(actual[key], expected[key])
    else:
        assert actual == expected


def test_from_a_self_contained_folder_where_the_package_is_missing(model, tokenizer, translator, tmp_path):
    save_self_contained(model, tmp_path / "model", tokenizer)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["custom_pipelines"]["translation"]["impl"] == "translation_pipeline.TranslationPipeline"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [sys.executable, "-c", REMOTE, str(tmp_path / "model"), str(tmp_path / "again")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, input=json.dumps(SENTENCES),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wanted = [
        translator(SENTENCES),
        translator(SENTENCES, return_scores=True, return_alignments=True, num_return_sequences=2),
        list(translator(iter(SENTENCES))),
    ]
    assert_alike(json.loads(done.stdout), [json.loads(json.dumps(wanted))] * 4)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    assert not hasattr(loaded.config, "custom_pipelines")
    assert AutoTokenizer.from_pretrained(tmp_path / "again", trust_remote_code=False).vocab_size == tokenizer.vocab_size


def test_a_series_of_pandas_is_read_in_its_order_and_a_table_refused(translator):
    pandas = pytest.importorskip("pandas")
    sentences = ["a b c", "a", "c b a", "b"]
    series = pandas.Series(sentences).iloc[[2, 0, 3, 1]]
    assert [each[0] for each in translator(series)] == translator(list(series))
    assert [each[0] for each in translator(series.iloc[1:])] == translator(list(series)[1:])
    for inputs in (pandas.DataFrame({"en": sentences}), b"a b c"):
        with pytest.raises(TypeError, match="cannot translate"):
            translator(inputs)


def test_whoever_wants_a_dict_of_generate_gets_translations_all_the_same(translator):
    assert translator(["a b c", "b"], return_dict_in_generate=True) == translator(["a b c", "b"])


def test_a_tag_of_the_call_or_the_pipeline_is_put_in_front(model):
    tagged = train_tokenizer(texts=["a b c", "A B C"], vocab_size=262, tags=["<2de>"])
    translator = TranslationPipeline(model=model, tokenizer=tagged, device="cpu")
    wanted = [expected(model, tagged, f"<2de> {sentence}" if sentence.strip() else "") for sentence in SENTENCES]
    assert translator(SENTENCES, tag="2de") == [one for (one,) in wanted]
    by_itself = TranslationPipeline(model=model, tokenizer=tagged, device="cpu", tag="<2de>")
    assert by_itself("a b c") == wanted[0]
    tagged.tgt_lang = "de"
    assert translator("a b c") == wanted[0]
    with pytest.raises(ValueError, match="'<2fr>' is not a tag of this tokenizer; it knows <2de>"):
        translator("a", tag="2fr")
