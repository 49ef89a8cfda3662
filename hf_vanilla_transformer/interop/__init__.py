"""Checkpoints of other systems in, and ours out to them; one module and one table of names a system."""

from .bert import load_bert, load_bert_tokenizer
from .convert import (
    convert_fairseq,
    convert_folder,
    convert_marian,
    convert_sentencepiece,
    convert_torch_transformer,
)
from .ctranslate2 import export_ctranslate2
from .fairseq import load_fairseq, load_fairseq_tokenizer
from .gpt2 import load_gpt2, load_gpt2_tokenizer
from .llama import load_llama, load_llama_tokenizer
from .marian import load_marian, load_marian_tokenizers
from .onnx import export_onnx
from .output_folder import TARGET_TOKENIZER
from .sentencepiece import load_sentencepiece_tokenizer
from .torch_export import export_torch, exported_programs
from .torch_transformer import load_torch_transformer

__all__ = [
    "TARGET_TOKENIZER",
    "convert_fairseq",
    "convert_folder",
    "convert_marian",
    "convert_sentencepiece",
    "convert_torch_transformer",
    "export_ctranslate2",
    "export_onnx",
    "export_torch",
    "exported_programs",
    "load_bert",
    "load_bert_tokenizer",
    "load_fairseq",
    "load_fairseq_tokenizer",
    "load_gpt2",
    "load_gpt2_tokenizer",
    "load_llama",
    "load_llama_tokenizer",
    "load_marian",
    "load_marian_tokenizers",
    "load_sentencepiece_tokenizer",
    "load_torch_transformer",
]
