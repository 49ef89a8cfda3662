"""fairseq checkpoints in, against the model written out by its documented names: logits, positions, dictionaries.

fairseq itself does not run on current versions of Python, so its formulas stand here, on one sentence at a time and
without any mask but the causal one.
"""

import argparse
import collections
import math

import pytest
import sentencepiece
import torch
import torch.nn.functional as F

from hf_vanilla_transformer.interop import load_fairseq, load_fairseq_tokenizer

BOS, PAD, EOS, UNK = range(4)
D, HEADS, FFN, V, SOURCE_V = 16, 4, 24, 24, 32
LAYERS = {"encoder": 2, "decoder": 3}


def random_state(pre_norm=False, final_norm=None, embeddings="all", learned=0, seed=0):
    """What `model.state_dict()` of a fairseq transformer holds, at random."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator) * 0.3

    state = {}
    for side, count in LAYERS.items():
        state[f"{side}.version"] = torch.tensor([3.0])
        if learned:
            state[f"{side}.embed_positions.weight"] = normal(learned + PAD + 1, D)
        else:
            state[f"{side}.embed_positions._float_tensor"] = torch.zeros(1)
        for layer in (f"{side}.layers.{index}" for index in range(count)):
            for attention in ("self_attn", "encoder_attn") if side == "decoder" else ("self_attn",):
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    state[f"{layer}.{attention}.{projection}.weight"] = normal(D, D)
                    state[f"{layer}.{attention}.{projection}.bias"] = normal(D)
                state[f"{layer}.{attention}_layer_norm.weight"] = 1 + normal(D)
                state[f"{layer}.{attention}_layer_norm.bias"] = normal(D)
            state |= {f"{layer}.fc1.weight": normal(FFN, D), f"{layer}.fc1.bias": normal(FFN)}
            state |= {f"{layer}.fc2.weight": normal(D, FFN), f"{layer}.fc2.bias": normal(D)}
            state |= {f"{layer}.final_layer_norm.weight": 1 + normal(D), f"{layer}.final_layer_norm.bias": normal(D)}
        if pre_norm if final_norm is None else final_norm:
            state |= {f"{side}.layer_norm.weight": 1 + normal(D), f"{side}.layer_norm.bias": normal(D)}
    state["decoder.embed_tokens.weight"] = normal(V, D)
    state["encoder.embed_tokens.weight"] = (
        state["decoder.embed_tokens.weight"] if embeddings == "all" else normal(SOURCE_V, D)
    )
    state["decoder.output_projection.weight"] = (
        state["decoder.embed_tokens.weight"] if embeddings in ("all", "target") else normal(V, D)
    )
    return state


def options(pre_norm=False, **changes):
    values = {"encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "dropout": 0.3, "arch": "transformer"}
    values |= {"encoder_normalize_before": pre_norm, "decoder_normalize_before": pre_norm}
    return argparse.Namespace(**{**values, **changes})


class Reference:
    """The formulas of fairseq's transformer for one sentence."""

    def __init__(self, state, args):
        self.state, self.args = state, args
        self.pre_norm = args.encoder_normalize_before
        self.activation = getattr(F, getattr(args, "activation_fn", "relu"))

    def norm(self, x, name):
        return F.layer_norm(x, (D,), self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1e-5)

    def linear(self, x, name):
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def positions(self, side, length):
        numbers = [PAD + 1 + index for index in range(length)]  # fairseq counts from padding_idx + 1
        if f"{side}.embed_positions.weight" in self.state:
            return self.state[f"{side}.embed_positions.weight"][numbers]
        rates = [math.exp(-i * math.log(10000) / (D // 2 - 1)) for i in range(D // 2)]
        rows = [[math.sin(n * r) for r in rates] + [math.cos(n * r) for r in rates] for n in numbers]
        return torch.tensor(rows)

    def embed(self, side, ids):
        scale = 1.0 if getattr(self.args, "no_scale_embedding", False) else math.sqrt(D)
        return self.state[f"{side}.embed_tokens.weight"][ids] * scale + self.positions(side, len(ids))

    def attend(self, name, x, memory, causal):
        heads = []
        q, k, v = (self.linear(y, f"{name}.{p}_proj") for p, y in zip("qkv", (x, memory, memory), strict=True))
        for part in torch.arange(D).chunk(HEADS):
            scores = q[:, part] @ k[:, part].T / math.sqrt(len(part))
            if causal:
                scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
            heads.append(scores.softmax(-1) @ v[:, part])
        return self.linear(torch.cat(heads, -1), f"{name}.out_proj")

    def residual(self, x, norm, sublayer):
        if self.pre_norm:
            return x + sublayer(self.norm(x, norm))
        return self.norm(x + sublayer(x), norm)

    def stack(self, side, ids, memory=None):
        x = self.embed(side, ids)
        for index in range(LAYERS[side]):
            layer = f"{side}.layers.{index}"
            x = self.residual(
                x, f"{layer}.self_attn_layer_norm",
                lambda y: self.attend(f"{layer}.self_attn", y, y, side == "decoder"),
            )  # fmt: skip
            if memory is not None:
                x = self.residual(
                    x, f"{layer}.encoder_attn_layer_norm",
                    lambda y: self.attend(f"{layer}.encoder_attn", y, memory, False),
                )  # fmt: skip
            x = self.residual(
                x, f"{layer}.final_layer_norm",
                lambda y: self.linear(self.activation(self.linear(y, f"{layer}.fc1")), f"{layer}.fc2"),
            )  # fmt: skip
        return self.norm(x, f"{side}.layer_norm") if f"{side}.layer_norm.weight" in self.state else x

    def logits(self, source, target):
        states = self.stack("decoder", target, self.stack("encoder", source))
        return states @ self.state["decoder.output_projection.weight"].T


SOURCES = [[9, 4, 17, 5, 20, EOS], [8, 21, EOS], [6, 6, 11, 19, EOS]]
TARGETS = [[EOS, 5, 9, 11, 22], [EOS, 13, 4, 4, 8], [EOS, 10, 23, 7, 7]]


def largest_difference(model, state, args, left):
    """Over all sentences, as one batch padded on the left (fairseq's habit) or on the right."""
    length = max(map(len, SOURCES))
    padded = [[PAD] * (length - len(row)) + row if left else row + [PAD] * (length - len(row)) for row in SOURCES]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(padded), decoder_input_ids=torch.tensor(TARGETS)).logits
    reference = Reference(state, args)
    expected = [reference.logits(*pair) for pair in zip(SOURCES, TARGETS, strict=True)]
    return (logits - torch.stack(expected)).abs().max().item()


def save(path, state, args, **content):
    torch.save({"args": args, "model": state, "optimizer_history": [{"num_updates": 3}], **content}, path)
    return path


CASES = {
    "post-norm": ({}, {}),
    "pre-norm": ({"pre_norm": True}, {}),
    "pre-norm of 2017, without norms at the ends": ({"pre_norm": True, "final_norm": False}, {}),
    "two dictionaries": ({"embeddings": "target"}, {}),
    "three matrices": ({"embeddings": "none"}, {}),
    "unscaled, gelu": ({}, {"no_scale_embedding": True, "activation_fn": "gelu"}),
    "learned positions": ({"learned": 40}, {}),
}


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_formulas(case, left, tmp_path):
    shape, changes = CASES[case]
    state, args = random_state(**shape), options(shape.get("pre_norm", False), **changes)
    model = load_fairseq(save(tmp_path / "model.pt", state, args))
    assert largest_difference(model, state, args, left) < 2e-5
    assert (model.config.decoder_start_token_id, model.config.pad_token_id) == (EOS, PAD)
    assert model.config.source_vocab_size == (None if shape.get("embeddings", "all") == "all" else SOURCE_V)
    assert model.config.dropout == 0.3


def test_new_checkpoints_have_the_options_in_cfg(tmp_path):
    state, args = random_state(), options()
    path = save(tmp_path / "model.pt", state, None, cfg={"model": args, "task": {"source_lang": "en"}})
    assert largest_difference(load_fairseq(path), state, args, True) < 2e-5


def test_old_names_and_fused_projections(tmp_path):
    state, args = random_state(), options()
    old = {}
    for name, tensor in state.items():
        if name.endswith(("k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias")):
            continue
        if name.endswith(("q_proj.weight", "q_proj.bias")):
            kind = name.rsplit(".", 1)[1]
            stem = name.removesuffix(f"q_proj.{kind}")
            old[f"{stem}in_proj_{kind}"] = torch.cat([state[f"{stem}{p}_proj.{kind}"] for p in "qkv"])
            continue
        numbers = {"encoder": ["self_attn", "final"], "decoder": ["self_attn", "encoder_attn", "final"]}
        for number, which in enumerate(numbers[name.split(".")[0]]):
            name = name.replace(f"{which}_layer_norm", f"layer_norms.{number}")
        old[name] = tensor
    del old["decoder.output_projection.weight"]  # tied, it was not stored
    model = load_fairseq(save(tmp_path / "model.pt", old, args))
    assert largest_difference(model, state, args, True) < 2e-5


def test_half_precision_becomes_float32(tmp_path):
    state = {name: tensor.half() for name, tensor in random_state().items()}
    model = load_fairseq(save(tmp_path / "model.pt", state, options()))
    assert largest_difference(model, {n: t.float() for n, t in state.items()}, options(), True) < 2e-5


def test_greedy_search_is_that_of_the_formulas(tmp_path):
    state, args = random_state(seed=3), options()
    model, reference = load_fairseq(save(tmp_path / "model.pt", state, args)), Reference(state, args)
    for source in SOURCES:
        expected = [EOS]
        for _ in range(9):
            logits = reference.logits(source, expected)[-1]
            logits[[PAD, EOS]] = -torch.inf
            expected.append(int(logits.argmax()))
        actual = model.generate(torch.tensor([source]), num_beams=1, max_new_tokens=9, suppress_tokens=[PAD, EOS])
        assert actual[0].tolist() == expected


def test_without_options_heads_must_be_given(tmp_path):
    state = random_state(pre_norm=True)
    path = save(tmp_path / "model.pt", state, None)
    with pytest.raises(ValueError, match="give `num_heads`"):
        load_fairseq(path)
    assert largest_difference(load_fairseq(path, num_heads=HEADS), state, options(True), True) < 2e-5


@pytest.mark.parametrize(
    ("change", "changes", "message"),
    [
        (
            {"encoder.layernorm_embedding.weight": torch.zeros(D)},
            {},
            r"no place for: encoder.layernorm_embedding.weight",
        ),
        (
            {"decoder.layers.0.fc2.weight": torch.zeros(D, 5)},
            {},
            r"decoder.layers.0.fc2.weight is \(16, 5\), our .* \(16, 24\)",
        ),
        ({"decoder.layers.2.encoder_attn.v_proj.bias": None}, {}, "missing: decoder.layers.2.encoder_attn.v_proj.bias"),
        ({}, {"decoder_attention_heads": 2}, "encoder_attention_heads=4 and decoder_attention_heads=2"),
    ],
)
def test_what_does_not_fit_is_refused(change, changes, message, tmp_path):
    state = {name: tensor for name, tensor in {**random_state(), **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        load_fairseq(save(tmp_path / "model.pt", state, options(**changes)))


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the checkpoint was run')",))


@pytest.mark.parametrize("content", [{"extra": Harmful()}, {"extra": collections.UserDict()}])
def test_a_file_that_would_run_code_is_not_opened(content, tmp_path):
    with pytest.raises(ValueError, match="would run code"):
        load_fairseq(save(tmp_path / "model.pt", random_state(), options(), **content))


def test_a_file_without_a_model_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="there is no `model` in it"):
        load_fairseq(tmp_path / "model.pt")


# Dictionaries


def test_a_dictionary_numbers_words_as_fairseq_does(tmp_path):
    (tmp_path / "dict.de.txt").write_text("hund 90\ngro@@ 7\nße 5\n. 3\n# 1\n", encoding="utf-8")
    tokenizer = load_fairseq_tokenizer(tmp_path / "dict.de.txt", 16)
    assert tokenizer("ein gro@@ ße hund .").input_ids == [UNK, 5, 6, 4, 7, EOS]
    assert tokenizer.decode([5, 6, 4, 7, EOS], skip_special_tokens=True) == "große hund ."
    assert len(tokenizer) == 16
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (PAD, EOS, BOS)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_dictionary_of_sentencepiece_tokens_cuts_raw_text(model_type, tmp_path):
    texts = [f"{a} {b} {c}" for a in ("the", "a", "one") for b in ("dog", "cat", "bird") for c in ("runs", "sleeps")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(tmp_path / "spm"), vocab_size=30, model_type=model_type,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    pieces = [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())][::-1]
    (tmp_path / "dict.txt").write_text("".join(f"{piece} 1\n" for piece in pieces), encoding="utf-8")
    tokenizer = load_fairseq_tokenizer(tmp_path / "dict.txt", 48, tmp_path / "spm.model")
    for text in [*texts, "a  dog", "zebra"]:
        expected = [4 + pieces.index(p) if p in pieces else UNK for p in processor.encode(text, out_type=str)]
        assert tokenizer(text).input_ids == [*expected, EOS]
    assert tokenizer.decode(tokenizer(texts[3]).input_ids, skip_special_tokens=True) == texts[3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hund 3\nkatze\n", "line 2: 'katze.*is not a token"),
        ("hund 3\nhund 2\n", "line 2: 'hund' appears twice"),
        ("hund 3\n<pad> 2\n", "line 2: '<pad>' appears twice"),
        ("a 1\nb 1\nc 1\n", "7 tokens with the special ones, but the embedding has 6 rows"),
    ],
)
def test_a_damaged_dictionary_is_refused(content, message, tmp_path):
    (tmp_path / "dict.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_fairseq_tokenizer(tmp_path / "dict.txt", 6)
