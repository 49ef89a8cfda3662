"""What stands beside exported graphs: tokenizer, settings, a program that translates with them, and a description."""

import copy
import json
import shutil
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..data.tokenization import save_tokenizer
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .output_folder import TARGET_TOKENIZER

README = """# A translation model as two graphs ({format})

`encoder.{suffix}` runs once for each source; `decoder.{suffix}` runs once for each token of the translation. They were
exported by hf_vanilla_transformer, which is not needed to run them. Sizes marked B (sentences), S (tokens of the
source), T (new tokens) and P (earlier tokens) are free.

| Graph | Input | Shape | Type |
|---|---|---|---|
| encoder | `input_ids` | (B, S) | int64 |
| | `attention_mask` | (B, S): 1, or 0 for padding | int64 |
| decoder | `input_ids` | (B, T) | int64 |
| | `encoder_attention_mask` | (B, S): the encoder's | int64 |
| | `cross_key.i`, `cross_value.i` | (B, {heads}, S, {d_k}), (B, {heads}, S, {d_v}): the encoder's outputs | {dtype} |
| | `past_key.i`, `past_value.i` | (B, {heads}, P, {d_k}), (B, {heads}, P, {d_v}): of earlier tokens | {dtype} |

| Graph | Output | Shape | Type |
|---|---|---|---|
| encoder | `cross_key.i`, `cross_value.i` | as above | {dtype} |
| decoder | `logits` | (B, T, {vocabulary}): before the softmax | {dtype} |
| | `present_key.i`, `present_value.i` | (B, {heads}, P + T, ...): the `past_...` of the next step | {dtype} |

i is the layer of the decoder, from 0 to {last}; key and value of a layer follow each other. {calling}
At the first step P is 0, and the new token is {start} (`decoder_start_token_id`). A source ends with {end}
(`eos_token_id`), which the tokenizer adds; so does a translation. {positions}
`config.json` has the shape of the model, `generation_config.json` the ids above.
"""

ONNX_CALL = "Inputs and outputs have these names."
TORCH_CALL = """`torch.export.load("decoder.pt2").module()` is called as
`decoder(input_ids, encoder_attention_mask, cross, past)`, where `cross` and `past` are tuples of tensors in that order;
the graphs return tuples."""

EXAMPLE = """
## Translating

```bash
pip install {packages}
python translate.py "A sentence."
```

`translate.py` decodes greedily, with the cache, one sentence at a time. Of `generation_config.json` it reads special
ids, limits of length, and tokens that are never written; beams and penalties are left to a program of your own.
Where `config.json` has `num_learned_positions`, it refuses a sentence of more tokens.
`tokenizer.json` makes ids of text and text of ids.
"""


def require_exportable(model: object) -> None:
    """Refuses what cannot be exported as it is.

    Args:
        model: what to export.

    Raises:
        ValueError: it is not a model of this package, or has adapters or quantised weights in it.
    """
    if not isinstance(model, VanillaTransformerForConditionalGeneration):
        raise ValueError(
            f"a {type(model).__name__} cannot be exported; allowed: a VanillaTransformerForConditionalGeneration, such "
            "as `convert` makes of models of other systems"
        )
    if getattr(model, "peft_config", None):
        raise ValueError("the model has adapters; merge them into its weights first, by peft's merge_and_unload()")
    if any(type(parameter) is not nn.Parameter for parameter in model.parameters()):
        raise ValueError("the weights of the model are quantised; load it without quantization_config, and export that")


def save_tokenizers(
    config: VanillaTransformerConfig,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    target_tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Saves the tokenizer of the source in a folder, and that of the target in its sub-folder `target_tokenizer`.

    Args:
        config: of the model.
        folder: where to.
        tokenizer: of the source, and of the target where there is one vocabulary.
        target_tokenizer: of the target, where it has a vocabulary of its own.

    Raises:
        ValueError: the tokenizer of the target is missing, or one is not a fast tokenizer.
    """
    if config.source_vocab_size is not None and target_tokenizer is None:
        raise ValueError("the model has two vocabularies; give the tokenizer of the target too: `target_tokenizer`")
    for each, place in ((tokenizer, folder), (target_tokenizer, folder / TARGET_TOKENIZER)):
        if each is None:
            continue
        if not isinstance(each, PreTrainedTokenizerFast):
            raise ValueError(f"a {type(each).__name__} has no tokenizer.json; give a fast tokenizer")
        save_tokenizer(each, place)


def add_companions(
    model: VanillaTransformerForConditionalGeneration,
    folder: Path,
    suffix: str,
    tokenizer: PreTrainedTokenizerBase | None,
    target_tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Makes a folder of graphs one that can be used by itself.

    Args:
        model: what was exported.
        folder: has the graphs in it.
        suffix: of their names, "onnx" or "pt2".
        tokenizer: of the source; without one, there is no program to translate with either.
        target_tokenizer: of the target, where it has a vocabulary of its own.

    Raises:
        ValueError: the tokenizer of the target is missing, or one is not a fast tokenizer.
    """
    config, is_onnx = copy.deepcopy(model.config), suffix == "onnx"
    for name in ("auto_map", "custom_pipelines"):  # they name code that is not here
        if hasattr(config, name):
            delattr(config, name)
    config.save_pretrained(folder)
    settings = {
        **{name: getattr(config, name) for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id")},
        **json.loads(model.generation_config.to_json_string()),
    }
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (folder / "generation_config.json").write_text(text, encoding="utf-8")
    learned = config.num_learned_positions
    text = README.format(
        format="ONNX" if is_onnx else "torch.export",
        suffix=suffix,
        heads=config.num_key_value_heads,
        d_k=config.d_k,
        d_v=config.d_v,
        dtype=str(model.dtype).removeprefix("torch."),
        vocabulary=config.vocab_size,
        last=config.num_decoder_layers - 1,
        calling=ONNX_CALL if is_onnx else TORCH_CALL,
        start=settings["decoder_start_token_id"],
        end=settings["eos_token_id"],
        positions="There is no longest length." if learned is None else f"No side may have more than {learned} tokens.",
    )
    if tokenizer is not None:
        save_tokenizers(config, folder, tokenizer, target_tokenizer)
        shutil.copyfile(Path(__file__).with_name("run_graphs.py"), folder / "translate.py")
        text += EXAMPLE.format(packages="onnxruntime tokenizers" if is_onnx else "torch numpy tokenizers")
    (folder / "README.md").write_text(text, encoding="utf-8")
