"""The Transformer of "Attention Is All You Need" (Vaswani et al., 2017) for the Hugging Face ecosystem.

Importing the package registers its classes with transformers' Auto classes and with `pipeline("translation")`.

The files of this folder are the model, and go to the Hub with it. Its code scan takes no sub-folders, so names make the
groups, each to be read in this order:

- Figure 1, a box a file: `embeddings`, `positions`, `attention`, `feed_forward`, `norms`, `dropout`, `encoder`,
  `decoder_stack`, `decoder`, `loss`, `loss_r_drop`, `loss_distillation`; and variants inside attention,
  `positions_relative`, `attention_features`, `attention_linear`, `attention_linear_cross`, `attention_relative`,
  `attention_patterns`; and sources that are not tokens, `source_inputs`;
- the whole model: `configuration_vanilla_transformer`, `modeling_vanilla_transformer`, and what that stands on,
  `modeling_*`;
- the decoder alone, a language model: `configuration_decoder_only`, `decoder_only`, `modeling_decoder_only`,
  `decoding_prompts`;
- its left half alone, as BERT is: `configuration_encoder_only`, `modeling_encoder_only`, `encoder_heads`;
- text as tokens (§5.1): `tokenization_*`;
- from logits to tokens (§6.1): `decoding`, which is behind `generate()`, and `decoding_*`: the search, its rules, its
  steps, the decoder position by position, the cache;
- text in, text out: `translation_*`.

Everything else lives in sub-packages: `data`, `training`, `inference`, `evaluation`, `interop`, `lab`, `publishing`,
and `commands`, which are the verbs of `vanilla-transformer`.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipelines,
)

from .configuration_decoder_only import VanillaTransformerDecoderConfig
from .configuration_encoder_only import VanillaTransformerEncoderConfig
from .configuration_vanilla_transformer import PRESETS, VanillaTransformerConfig
from .modeling_decoder_only import VanillaTransformerDecoderModel, VanillaTransformerForCausalLM
from .modeling_encoder_only import (
    VanillaTransformerEncoderModel,
    VanillaTransformerForMaskedLM,
    VanillaTransformerForSequenceClassification,
    VanillaTransformerForTokenClassification,
)
from .modeling_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
    VanillaTransformerPreTrainedModel,
)
from .tokenization_vanilla_transformer import VanillaTransformerTokenizer
from .translation_pipeline import TranslationPipeline

__version__ = "0.1.0"

# Repeats are no error: a notebook that imports the package anew has new classes.
AutoConfig.register(VanillaTransformerConfig.model_type, VanillaTransformerConfig, exist_ok=True)
AutoModel.register(VanillaTransformerConfig, VanillaTransformerModel, exist_ok=True)
AutoModelForSeq2SeqLM.register(VanillaTransformerConfig, VanillaTransformerForConditionalGeneration, exist_ok=True)
AutoConfig.register(VanillaTransformerDecoderConfig.model_type, VanillaTransformerDecoderConfig, exist_ok=True)
AutoModel.register(VanillaTransformerDecoderConfig, VanillaTransformerDecoderModel, exist_ok=True)
AutoModelForCausalLM.register(VanillaTransformerDecoderConfig, VanillaTransformerForCausalLM, exist_ok=True)
AutoTokenizer.register(VanillaTransformerConfig, fast_tokenizer_class=VanillaTransformerTokenizer, exist_ok=True)
AutoConfig.register(VanillaTransformerEncoderConfig.model_type, VanillaTransformerEncoderConfig, exist_ok=True)
for _auto_class, _model_class in (
    (AutoModel, VanillaTransformerEncoderModel),
    (AutoModelForMaskedLM, VanillaTransformerForMaskedLM),
    (AutoModelForSequenceClassification, VanillaTransformerForSequenceClassification),
    (AutoModelForTokenClassification, VanillaTransformerForTokenClassification),
):
    _auto_class.register(VanillaTransformerEncoderConfig, _model_class, exist_ok=True)
AutoTokenizer.register(VanillaTransformerEncoderConfig, fast_tokenizer_class=VanillaTransformerTokenizer, exist_ok=True)
pipelines.PIPELINE_REGISTRY.register_pipeline("translation", TranslationPipeline, AutoModelForSeq2SeqLM, type="text")
# What is in here is refused, whatever is registered. It is no part of transformers' interface, and may go.
getattr(pipelines, "REMOVED_TASKS", {}).pop("translation", None)
# With this, `TranslationPipeline.save_pretrained` would write its own code beside models that are saved without theirs.
if "_registered_impl" in vars(TranslationPipeline):
    del TranslationPipeline._registered_impl

__all__ = [
    "PRESETS",
    "TranslationPipeline",
    "VanillaTransformerConfig",
    "VanillaTransformerDecoderConfig",
    "VanillaTransformerDecoderModel",
    "VanillaTransformerEncoderConfig",
    "VanillaTransformerEncoderModel",
    "VanillaTransformerForCausalLM",
    "VanillaTransformerForConditionalGeneration",
    "VanillaTransformerForMaskedLM",
    "VanillaTransformerForSequenceClassification",
    "VanillaTransformerForTokenClassification",
    "VanillaTransformerModel",
    "VanillaTransformerPreTrainedModel",
    "VanillaTransformerTokenizer",
]
