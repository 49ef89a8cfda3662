"""A saved folder with code in it, in an interpreter that cannot import this package."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerEncoderConfig,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerForMaskedLM,
    VanillaTransformerModel,
)
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.unit_tokenizer import train_unit_tokenizer
from hf_vanilla_transformer.publishing import save_self_contained

# What a program begins with that is to run as where the package is not installed.
PACKAGE_IS_MISSING = """
import importlib.abc, json, sys

class PackageIsMissing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_vanilla_transformer":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, PackageIsMissing())
try:
    import hf_vanilla_transformer
    raise SystemExit("the package can be imported, so this proves nothing")
except ModuleNotFoundError:
    pass
"""

LOADER = (
    PACKAGE_IS_MISSING
    + """
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer

folder, again, reference, phonetic, met = sys.argv[1:]
expected = torch.load(reference, weights_only=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
assert tokenizer("a b", return_tensors="pt").input_ids.tolist() == expected["tokens"].tolist()
if "phonetic" in expected:
    for place in (phonetic, again + "-tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=True)
        assert type(tokenizer).__name__ == "VanillaTransformerTokenizer"
        tokenizer.tag = "ipa"
        assert dict(tokenizer("né", text_target="n e")) == expected["phonetic"], tokenizer("né", text_target="n e")
        assert tokenizer.decode(expected["phonetic"]["labels"], skip_special_tokens=True) == "n e"
        assert tokenizer.decode(tokenizer("né").input_ids, skip_special_tokens=True) == "né"
        tokenizer.save_pretrained(again + "-tokenizer")
for place in (folder, again):
    config = AutoConfig.from_pretrained(place, trust_remote_code=True)
    assert config.to_dict()["d_model"] == expected["d_model"] and config.hidden_size == expected["d_model"]
    base = AutoModel.from_pretrained(place, trust_remote_code=True).eval()
    model = AutoModelForSeq2SeqLM.from_pretrained(place, trust_remote_code=True).eval()
    for loaded in (config, base, model):
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
    inputs = {name: expected[name] for name in ("input_ids", "attention_mask", "decoder_input_ids")}
    assert torch.equal(base(**inputs).last_hidden_state, expected["hidden"])
    assert torch.equal(model(**inputs).logits, expected["logits"])
    prompt = {name: expected[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(model.generate(**prompt, max_new_tokens=6, num_beams=2), expected["ids"])
    loss = model(**prompt, labels=expected["decoder_input_ids"]).loss
    assert torch.equal(loss, expected["loss"])
    if place == folder:
        model.save_pretrained(again)
print("equal")
if met:  # another folder's code is another module, which has checked nothing yet
    model = AutoModelForSeq2SeqLM.from_pretrained(met, trust_remote_code=True).eval()
    sys.modules["transformers"].__version__ = "5.99.0"
    print(model.generate(torch.tensor([[5, 6, 2]]), max_new_tokens=3).shape[0])
"""
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = VanillaTransformerConfig.from_preset(
        "tiny", vocab_size=270, d_model=16, num_heads=2, d_ff=32, num_encoder_layers=2, num_decoder_layers=1
    )
    return VanillaTransformerForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a b c"], vocab_size=262)


@pytest.fixture(scope="module")
def phonetic():
    """A tokenizer that has code of its own."""
    rows = [{"source": "né", "target": "n e"}]
    return train_unit_tokenizer(rows, source_units="nfd_characters", target_units="words", tags=["<ipa>"])


def load_without_the_package(model, tokenizer, folder, tmp_path, phonetic=None, met=""):
    """Loads `folder` in an interpreter without the package, compares, saves it again from there, and loads that.

    Then the folder `met` is the first to be loaded there that meets a newer transformers.
    """
    source = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 1, 1]])
    target = torch.randint(4, 270, (2, 4), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": source, "attention_mask": source.ne(1).long(), "decoder_input_ids": target}
    prompt = {"input_ids": source, "attention_mask": source.ne(1).long()}
    with torch.no_grad():
        reference = {
            **inputs,
            "tokens": tokenizer("a b", return_tensors="pt").input_ids,
            "d_model": model.config.d_model,
            "hidden": model.model(**inputs).last_hidden_state,
            "logits": model(**inputs).logits,
            "ids": model.generate(**prompt, max_new_tokens=6, num_beams=2),
            "loss": model(**prompt, labels=target).loss,
        }
    if phonetic is not None:
        phonetic.tag = "ipa"
        reference["phonetic"] = dict(phonetic("né", text_target="n e"))
    torch.save(reference, tmp_path / "reference.pt")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    return subprocess.run(
        [sys.executable, "-c", LOADER, str(folder), str(tmp_path / "again"), str(tmp_path / "reference.pt"),
         str(tmp_path / "phonetic"), str(met)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def apart(model, tokenizer, phonetic, tmp_path_factory):
    """What one interpreter without the package says of all folders: another one would be another 4 seconds."""
    folder = tmp_path_factory.mktemp("apart")
    save_self_contained(model, folder / "model", tokenizer)
    save_self_contained(model, folder / "phonetic", phonetic)
    save_self_contained(model, folder / "met")
    return load_without_the_package(model, tokenizer, folder / "model", folder, phonetic, folder / "met")


def test_a_self_contained_folder_loads_and_saves_again(apart):
    assert apart.stdout.splitlines()[:1] == ["equal"], apart.stderr


@pytest.mark.slow  # 4 seconds: another interpreter
def test_so_does_what_save_pretrained_writes_after_registering(model, tokenizer, tmp_path, monkeypatch):
    for cls, auto_class in (
        (VanillaTransformerConfig, "AutoConfig"),
        (VanillaTransformerModel, "AutoModel"),
        (VanillaTransformerForConditionalGeneration, "AutoModelForSeq2SeqLM"),
    ):
        monkeypatch.setattr(cls, "_auto_class", None)  # undone after the test, whatever is registered in it
        cls.register_for_auto_class(auto_class)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    del model.config.auto_map
    done = load_without_the_package(model, tokenizer, tmp_path / "model", tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "equal"), done.stderr


ENCODER_LOADER = (
    PACKAGE_IS_MISSING
    + """
import torch
import transformers

folder, again, reference = sys.argv[1:]
expected = torch.load(reference, weights_only=True)
for place in (folder, again):
    for auto_class in ("AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification",
                       "AutoModelForTokenClassification"):
        model = getattr(transformers, auto_class).from_pretrained(place, trust_remote_code=True).eval()
        assert type(model).__module__.startswith("transformers_modules."), type(model)
        assert type(model.config).__name__ == "VanillaTransformerEncoderConfig"
        states = model.base_model(input_ids=expected["input_ids"]).last_hidden_state
        assert torch.equal(states, expected["hidden"])
        if auto_class == "AutoModelForMaskedLM":
            assert torch.equal(model(input_ids=expected["input_ids"]).logits, expected["logits"])
            if place == folder:
                model.save_pretrained(again)
print("equal")
"""
)


@pytest.mark.slow  # 4 seconds: another interpreter
def test_so_does_an_encoder_with_each_of_its_auto_classes(tmp_path):
    shape = {"vocab_size": 30, "d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1}
    model = VanillaTransformerForMaskedLM(VanillaTransformerEncoderConfig(**shape, masked_lm_head="transform")).eval()
    ids = torch.tensor([[5, 6, 7, 8, 2]])
    with torch.no_grad():
        reference = {"input_ids": ids, "hidden": model.model(ids).last_hidden_state, "logits": model(ids).logits}
    torch.save(reference, tmp_path / "reference.pt")
    save_self_contained(model, tmp_path / "model")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [sys.executable, "-c", ENCODER_LOADER, *(str(tmp_path / name) for name in ("model", "again", "reference.pt"))],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "equal"), done.stderr


@pytest.mark.parametrize("trust", [None, True, False])
def test_where_the_package_is_imported_its_own_classes_are_used(model, tmp_path, trust):
    save_self_contained(model, tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, trust_remote_code=trust)
    assert type(loaded) is VanillaTransformerForConditionalGeneration


TWICE = """
import sys
import hf_vanilla_transformer
from transformers import AutoConfig, AutoModelForSeq2SeqLM

first = hf_vanilla_transformer.VanillaTransformerConfig
for name in [name for name in sys.modules if name.startswith("hf_vanilla_transformer")]:
    del sys.modules[name]
import hf_vanilla_transformer

config = AutoConfig.for_model("vanilla_transformer", vocab_size=20, d_model=8, num_heads=2, d_ff=8)
assert type(config) is hf_vanilla_transformer.VanillaTransformerConfig is not first
model = AutoModelForSeq2SeqLM.from_config(config)
assert type(model) is hf_vanilla_transformer.VanillaTransformerForConditionalGeneration
print("registered twice")
"""


@pytest.mark.slow  # 4 seconds: another interpreter
def test_importing_the_package_anew_registers_the_new_classes():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=300)
    assert "registered twice" in done.stdout, done.stderr


def test_a_folder_that_meets_a_newer_transformers_checks_itself(apart):
    assert (apart.returncode, apart.stdout.splitlines()[1:]) == (0, ["1"]), apart.stderr
    assert (
        apart.stderr.count("and 5.99.0 is installed; a quick comparison of cached and uncached decoding found no") == 1
    )
