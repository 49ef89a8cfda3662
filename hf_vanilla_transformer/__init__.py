"""The Transformer of "Attention Is All You Need" (Vaswani et al., 2017) for the Hugging Face ecosystem.

Importing the package registers its classes with transformers' Auto classes and with `pipeline("translation")`.
Training, translating and the like live in sub-packages: `hf_vanilla_transformer.training`,
`hf_vanilla_transformer.inference`.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, pipelines

from .configuration_vanilla_transformer import PRESETS, VanillaTransformerConfig
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
AutoTokenizer.register(VanillaTransformerConfig, fast_tokenizer_class=VanillaTransformerTokenizer, exist_ok=True)
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
    "VanillaTransformerForConditionalGeneration",
    "VanillaTransformerModel",
    "VanillaTransformerPreTrainedModel",
    "VanillaTransformerTokenizer",
]
