"""Stage `tokenizers`: byte-pair vocabularies of the language model and of CLIP, from the world's text."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from gill.flatland.captions import all_captions
from gill.flatland.documents import document
from gill.flatland.world import scenes
from scripts.flatland.common import BuildContext

LANGUAGE_VOCABULARY = 512
CLIP_VOCABULARY = 660
MAX_CAPTION_TOKENS = 40
NUM_TEXTS = 3000
# Chats as the dialogues that the language model reads (`gill.flatland.dialogue_text`).
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '' if loop.first else '\\n' }}"
    "Q: {{ message['content'] }}\nA:{% else %} {{ message['content'] }}{% endif %}{% endfor %}"
)
# CLIP's own split into words, numbers and punctuation.
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def build(context: BuildContext) -> dict[str, float]:
    """Write both tokenizers beside their models."""
    language = language_tokenizer([document("train", index, context.seed) for index in range(NUM_TEXTS)])
    language.save_pretrained(context.out / "language")
    captions = [text for scene in scenes("train", NUM_TEXTS, context.seed) for text in all_captions(scene)]
    clip = clip_tokenizer(captions)
    save_clip_tokenizer(clip, context.out / "clip")
    save_clip_tokenizer(clip, context.out / "diffusion" / "tokenizer")
    return {"language_vocabulary": len(language), "clip_vocabulary": len(clip)}


def language_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with OPT's ids: `</s>` (2) opens every text and ends it, `<pad>` is 1.

    A text always starts with a space, so that segments that are encoded apart join as if encoded together.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LANGUAGE_VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="</s>",
        chat_template=CHAT_TEMPLATE,
    )


def clip_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """CLIP's lower-case BPE with end-of-word marks, at most 40 tokens a caption."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=CLIP_VOCABULARY - 256 - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(captions, trainer)
    model = json.loads(bpe.to_str())["model"]
    learned = sorted(model["vocab"], key=model["vocab"].get)
    ends = [byte + "</w>" for byte in alphabet]
    tokens = list(dict.fromkeys([*alphabet, *ends, *learned, "<|startoftext|>", "<|endoftext|>"]))
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split()) for pair in model["merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_CAPTION_TOKENS)


def save_clip_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """The tokenizer in today's layout, and vocab.json and merges.txt for readers of the older one."""
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
