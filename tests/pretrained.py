"""The smallest Hugging Face models, of random weights, one of each architecture that is converted."""

from pathlib import Path
from typing import Any

import torch
import transformers

VOCABULARY = 60
BERT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "vocab_size": VOCABULARY, "max_position_embeddings": 64,
}  # fmt: skip
SEQ2SEQ = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": VOCABULARY, "max_position_embeddings": 64,
    "decoder_start_token_id": 1,
}  # fmt: skip
IMAGE = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # architecture -> configuration class and its values
    "BertModel": ("BertConfig", BERT),
    "BertForSequenceClassification": ("BertConfig", BERT),
    "DistilBertForTokenClassification": (
        "DistilBertConfig",
        {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "vocab_size": VOCABULARY, "max_position_embeddings": 64},
    ),
    "RobertaForSequenceClassification": ("RobertaConfig", BERT),
    "AlbertForQuestionAnswering": ("AlbertConfig", BERT | {"embedding_size": 8}),
    "MobileBertForSequenceClassification": (
        "MobileBertConfig",
        BERT | {"intra_bottleneck_size": 16, "embedding_size": 8, "num_feedforward_networks": 2},
    ),
    "ViTForImageClassification": ("ViTConfig", IMAGE),
    "DeiTForImageClassification": ("DeiTConfig", IMAGE),
    "GPT2LMHeadModel": (
        "GPT2Config",
        {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": VOCABULARY, "n_positions": 64},
    ),
    "OPTForCausalLM": (
        "OPTConfig",
        {
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32,
            "vocab_size": VOCABULARY, "word_embed_proj_dim": 16, "max_position_embeddings": 64,
        },
    ),
    "LlamaForCausalLM": ("LlamaConfig", BERT | {"num_key_value_heads": 1}),
    "T5ForConditionalGeneration": (
        "T5Config",
        {
            "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": VOCABULARY,
            "decoder_start_token_id": 0,
        },
    ),
    "BartForConditionalGeneration": ("BartConfig", SEQ2SEQ),
    "MarianMTModel": ("MarianConfig", SEQ2SEQ | {"pad_token_id": VOCABULARY - 1}),
    "WhisperForConditionalGeneration": (
        "WhisperConfig",
        SEQ2SEQ
        | {
            "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 32, "pad_token_id": 0,
            "bos_token_id": 1, "eos_token_id": 2, "suppress_tokens": None, "begin_suppress_tokens": None,
        },
    ),
}  # fmt: skip


def build(architecture: str) -> Any:
    """The model, always with the same weights."""
    torch.manual_seed(0)
    configuration, values = MODELS[architecture]
    return getattr(transformers, architecture)(getattr(transformers, configuration)(**values)).eval()


def saved(architecture: str, folder: Path) -> Path:
    """The folder, with config.json and model.safetensors in it."""
    build(architecture).save_pretrained(folder)
    return folder
