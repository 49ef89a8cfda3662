"""From foreign files to our folder and out again, by the functions and by the scripts."""

import random

import pytest
import torch
from test_fairseq import SOURCES, TARGETS, V, options, random_state, save
from test_marian import marian, sentences, tokenizer_folder
from test_scripts import run
from test_torch_transformer import Translator
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianTokenizer

from hf_vanilla_transformer.inference import translate


def marian_folder(folder, two_models=True):
    tokenizer_folder(folder, "unigram", two_models)
    vocabulary = MarianTokenizer.from_pretrained(folder)
    ids = {"vocab_size": len(vocabulary), "pad_token_id": vocabulary.pad_token_id}
    ids["decoder_start_token_id"] = vocabulary.pad_token_id
    return marian(folder, scale_embedding=True, **ids), vocabulary


@pytest.mark.filterwarnings("ignore:Recommended.*sacremoses")
@pytest.mark.parametrize("two_models", [True, False])
def test_a_marian_folder_becomes_one_of_ours_that_translates_alike(two_models, tmp_path):
    (tmp_path / "marian").mkdir()
    theirs, their_tokenizer = marian_folder(tmp_path / "marian", two_models)
    done = run("convert.py", "marian", tmp_path / "marian", "--output_dir", tmp_path / "ours")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ours" / "target_tokenizer").is_dir() is two_models
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours")
    texts = sentences(9, 12)
    batch = their_tokenizer(texts, return_tensors="pt", padding=True)
    expected = theirs.generate(**batch, num_beams=2, max_new_tokens=12, no_repeat_ngram_size=1)
    expected = their_tokenizer.batch_decode(expected, skip_special_tokens=True)
    options = {"num_beams": 2, "max_new_tokens": 12, "no_repeat_ngram_size": 1}
    assert [text.strip() for text in translate(model, tokenizer, texts, **options)] == expected
    assert len(set(expected)) > 1
    if two_models:
        target = AutoTokenizer.from_pretrained(tmp_path / "ours" / "target_tokenizer")
        text = "übers große house"
        assert target(text).input_ids == their_tokenizer(text_target=text).input_ids


def test_a_fairseq_checkpoint_and_its_dictionary(tmp_path):
    save(tmp_path / "model.pt", random_state(embeddings="target"), options())
    words = [f"w{number}" for number in range(20)]
    (tmp_path / "dict.en.txt").write_text("".join(f"{word} 1\n" for word in words))
    (tmp_path / "dict.de.txt").write_text("".join(f"{word.upper()} 1\n" for word in random.Random(0).sample(words, 18)))
    done = run(
        "convert.py", "fairseq", tmp_path / "model.pt", "--output_dir", tmp_path / "ours",
        "--source_dictionary", tmp_path / "dict.en.txt", "--target_dictionary", tmp_path / "dict.de.txt",
        "--set", "dropout=0.25",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours")
    tokenizers = [AutoTokenizer.from_pretrained(tmp_path / "ours" / part) for part in ("", "target_tokenizer")]
    assert [len(tokenizer) for tokenizer in tokenizers] == [32, V]
    assert (model.config.source_vocab_size, model.config.vocab_size, model.config.dropout) == (32, V, 0.25)
    assert tokenizers[0]("w3 w0").input_ids == [7, 4, 2]
    ids = tokenizers[1].convert_ids_to_tokens(TARGETS[0])
    assert model(torch.tensor(SOURCES[:1]), decoder_input_ids=torch.tensor(TARGETS[:1])).logits.shape[-1] == V
    assert ids[0] == "</s>"


def test_a_torch_state_file(tmp_path):
    theirs = Translator(True, separate=False)
    torch.save(theirs.state_dict(), tmp_path / "state.pt")
    names = ["--source_embedding", "source.weight", "--target_embedding", "target.weight"]
    names += ["--projection", "generator.weight", "--ignored", "^positions$"]
    done = run(
        "convert.py", "torch", tmp_path / "state.pt", "--output_dir", tmp_path / "ours", "--num_heads", 4, *names,
        "--set", "norm_position=pre", "pad_token_id=None",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours")
    assert model.config.norm_position == "pre"
    assert model.config.pad_token_id is None
    assert torch.equal(model.lm_head.bias, theirs.generator.bias)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["marian", "nowhere"], "nowhere"),
        (["fairseq", "nowhere.pt"], "fairseq: error: the following arguments are required: --source_dictionary"),
        (
            ["torch", "nowhere.pt"],
            "the following arguments are required: --num_heads, --source_embedding",
        ),
        (["torch", "{list}", "--num_heads", 4, "--source_embedding", "x"], "not a state_dict"),
        (["torch", "{list}", "--num_heads", 4, "--source_embedding", "x", "--set", "pre"], "is not of the form"),
    ],
)
def test_convert_says_what_is_wrong(arguments, message, tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    arguments = [str(argument).format(list=tmp_path / "list.pt") for argument in arguments]
    done = run("convert.py", *arguments, "--output_dir", tmp_path / "ours")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.filterwarnings("ignore:Recommended.*sacremoses")
def test_a_converted_model_is_exported_by_the_script(tmp_path):
    pytest.importorskip("ctranslate2")
    (tmp_path / "marian").mkdir()
    marian_folder(tmp_path / "marian", two_models=False)
    assert run("convert.py", "marian", tmp_path / "marian", "--output_dir", tmp_path / "ours").returncode == 0
    done = run("export.py", "--model", tmp_path / "ours", "--to", "ctranslate2", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    files = {"config.json", "model.bin", "shared_vocabulary.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    assert all(name in done.stdout for name in files)


def test_export_says_what_is_wrong(tmp_path):
    done = run("export.py", "--model", tmp_path / "no", "--to", "torch", "--output_dir", tmp_path / "out")
    assert done.returncode == 2
    assert str(tmp_path / "no") in done.stderr
