"""SentencePiece files against the library that writes them, and what is said about those that are damaged."""

import json
import random
import sys

import pytest
import sentencepiece
from test_marian import TEXTS, sentences
from transformers import AutoTokenizer

from hf_vanilla_transformer.commands.convert import main
from hf_vanilla_transformer.interop import load_sentencepiece_tokenizer
from hf_vanilla_transformer.interop.sentencepiece import read_sentencepiece

BOS, PAD, EOS, UNK = range(4)


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def model_file(request, tmp_path_factory):
    return train(tmp_path_factory.mktemp("spm"), model_type=request.param)


def train(folder, **options):
    """Ids of special tokens that are not ours; an unused one among the pieces."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(1)), model_prefix=str(folder / "spm"), hard_vocab_limit=False, minloglevel=2,
        **{"vocab_size": 70, "unk_id": 2, "bos_id": 5, "eos_id": 0, "control_symbols": ["<ctrl>"], **options},
    )  # fmt: skip
    return folder / "spm.model"


def test_pieces_scores_and_rules_are_those_of_the_library(model_file):
    model, theirs = read_sentencepiece(model_file), sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    ids = range(theirs.get_piece_size())
    ordinary = [number for number in ids if not theirs.is_control(number) and not theirs.is_unknown(number)]
    assert list(model.scores.items()) == [(theirs.id_to_piece(each), theirs.get_score(each)) for each in ordinary]
    assert (model.add_dummy_prefix, model.remove_extra_whitespaces) == (True, True)
    assert model.charsmap


def test_text_is_cut_as_by_the_library_and_numbered_as_here(model_file):
    tokenizer = load_sentencepiece_tokenizer(model_file)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    named = [tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    assert named == [BOS, PAD, EOS, UNK]
    assert tokenizer.convert_ids_to_tokens([BOS, PAD, EOS, UNK]) == ["<s>", "<pad>", "</s>", "<unk>"]
    known = {theirs.id_to_piece(number) for number in range(theirs.get_piece_size())}
    for text in [text for text in TEXTS if "<" not in text]:
        pieces = theirs.encode(text, out_type=str)
        expected = [tokenizer.convert_tokens_to_ids(piece) if piece in known else UNK for piece in pieces]
        assert tokenizer(text).input_ids == [*expected, EOS], text
    for text in sentences(5, 20):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_the_command_makes_a_folder_that_transformers_loads(model_file, tmp_path, capsys):
    assert main(["sentencepiece", str(model_file), "--output_dir", str(tmp_path / "tokenizer")]) == 0
    loaded, expected = AutoTokenizer.from_pretrained(tmp_path / "tokenizer"), load_sentencepiece_tokenizer(model_file)
    assert f"Converted: {len(expected)} tokens" in capsys.readouterr().out
    assert [loaded(text).input_ids for text in TEXTS] == [expected(text).input_ids for text in TEXTS]
    assert loaded.decode(range(len(loaded))) == expected.decode(range(len(loaded)))
    config = json.loads((tmp_path / "tokenizer" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_cut_or_changed_file_is_refused_by_name_or_still_a_model(model_file, tmp_path):
    """Whatever is wrong with the bytes, there is one kind of error, with the file in it and one line."""
    content, path = model_file.read_bytes(), tmp_path / "damaged.model"
    draw = random.Random(0)
    damaged = [content[:length] for length in range(0, len(content), len(content) // 150)]
    for _ in range(150):
        changed = bytearray(content)
        changed[draw.randrange(len(changed))] = draw.randrange(256)
        damaged.append(bytes(changed))
    messages = []
    for each in damaged:
        path.write_bytes(each)
        try:
            read_sentencepiece(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 150  # all that were cut, and some others
    assert all(str(path) in message and "\n" not in message for message in messages)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"byte_fallback": True, "vocab_size": 330}, "'<0x00>' is a user-defined or byte piece"),
        ({"user_defined_symbols": ["<2de>"]}, "'<2de>' is a user-defined or byte piece"),
        ({"model_type": "word"}, "model type 'word' is not supported; allowed: unigram, bpe"),
        ({"treat_whitespace_as_suffix": True}, "spaces at the end of pieces"),
    ],
)
def test_what_a_fast_tokenizer_cannot_follow_is_refused_in_one_line(options, message, tmp_path, capsys):
    path = train(tmp_path, **options)
    capsys.readouterr()
    assert main(["sentencepiece", str(path), "--output_dir", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: " in line
    assert message in line
    assert not (tmp_path / "out").exists()


def test_without_the_libraries_the_extra_is_named(model_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    monkeypatch.delattr(sentencepiece, "sentencepiece_model_pb2", raising=False)
    assert main(["sentencepiece", str(model_file), "--output_dir", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'hf-vanilla-transformer[sentencepiece]'" in line
