"""Tokenizers and processors of tiny pipelines, made without a vocabulary of any model: letters or bytes are tokens."""

from __future__ import annotations

from functools import cache
from tempfile import NamedTemporaryFile
from typing import Any

from .tiny_sizes import VOCABULARY

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
# Where a processor puts images and videos, by the names that it knows them under.
IMAGE_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "grid_bos_token": "<sop>",
    "grid_eos_token": "<eop>",
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IMAGE_PROCESSORS = ("CLIPImageProcessor", "Siglip2ImageProcessor")


def _build_clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    vocabulary = [*SPECIAL_TOKENS, *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    return CLIPTokenizer({token: number for number, token in enumerate(vocabulary)}, [], model_max_length=77)


def _build_t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "\N{LOWER ONE EIGHTH BLOCK}", *LETTERS]
    return T5Tokenizer([(piece, -1.0) for piece in pieces], extra_ids=0, model_max_length=512)


def _build_byte_tokenizer(**tokens: str) -> Any:
    """Byte-level BPE without merges, with the chat template of language models: every byte is a token.

    Args:
        tokens: Special tokens by the names that a processor knows them under.
    """
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    vocabulary = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer: Any = Qwen2Tokenizer(vocab=vocabulary, merges=[], extra_special_tokens=tokens)
    special = [*CHAT_TOKENS, "<|vision_start|>", "<|vision_end|>", *IMAGE_TOKENS.values()]
    tokenizer.add_special_tokens({"eos_token": CHAT_TOKENS[1], "additional_special_tokens": special})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 512
    return tokenizer


def _build_sentencepiece_tokenizer() -> Any:
    from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

    return ChatGLMTokenizer(_train_sentencepiece().name)


@cache
def _train_sentencepiece() -> Any:
    """Trains a model of sentencepiece with letters as tokens; returns its file, which ends with the process."""
    from sentencepiece import SentencePieceTrainer

    file = NamedTemporaryFile(suffix=".model")  # noqa: SIM115  tokenizers read it when they are saved
    SentencePieceTrainer.train(
        sentence_iterator=iter([LETTERS]),
        model_writer=file,
        model_type="char",
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    file.flush()
    return file


def _build_byt5_tokenizer() -> Any:
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer()


def _build_processor(name: str, image_processor: str, video_processor: str = "", **options: Any) -> Any:
    """Builds a processor: a byte-level tokenizer, and what prepares images and videos, which no prompt reaches."""
    import transformers

    tokenizer = _build_byte_tokenizer(**IMAGE_TOKENS)
    parts = [getattr(transformers, image_processor)(), tokenizer]
    if video_processor:
        parts.append(getattr(transformers, video_processor)())
    return getattr(transformers, name)(*parts, chat_template=CHAT_TEMPLATE, **options)


def _build_qwen2_vl_processor() -> Any:
    return _build_processor("Qwen2VLProcessor", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor")


def _build_qwen3_vl_processor() -> Any:
    return _build_processor("Qwen3VLProcessor", "Qwen2VLImageProcessor", "Qwen3VLVideoProcessor")


def _build_pixtral_processor() -> Any:
    return _build_processor("PixtralProcessor", "PixtralImageProcessor", image_token=IMAGE_TOKENS["image_token"])


def _build_glm_image_processor() -> Any:
    return _build_processor("GlmImageProcessor", "GlmImageImageProcessor")


TOKENIZERS = {
    "CLIPTokenizer": _build_clip_tokenizer,
    "T5Tokenizer": _build_t5_tokenizer,
    "T5TokenizerFast": _build_t5_tokenizer,
    "ChatGLMTokenizer": _build_sentencepiece_tokenizer,
    "ByT5Tokenizer": _build_byt5_tokenizer,
    **dict.fromkeys(
        ("Qwen2Tokenizer", "Qwen2TokenizerFast", "AutoTokenizer", "GemmaTokenizer", "TokenizersBackend"),
        _build_byte_tokenizer,
    ),
    "BertTokenizer": _build_byte_tokenizer,
    "XLMRobertaTokenizer": _build_byte_tokenizer,
    "LlamaTokenizer": _build_byte_tokenizer,
    "Qwen2VLProcessor": _build_qwen2_vl_processor,
    "Qwen3VLProcessor": _build_qwen3_vl_processor,
    "GlmImageProcessor": _build_glm_image_processor,
    "AutoProcessor": _build_pixtral_processor,  # that of Flux2's text encoder, the only class that names none
}
