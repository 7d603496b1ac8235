"""Small tokenizers of every kind that decoders come with, trained here, and a processor around one of them."""

from __future__ import annotations

import io
from functools import lru_cache

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lalm.audio.features import WhisperFrontEnd
from lalm.audio.lengths import Chain, Conv, Hops, Windows
from lalm.processing.processor import LalmProcessor

CORPUS = [
    "The dog barks loudly, and then a door closes.",
    "What is heard in this clip? A dog. How many words are spoken? Three of them.",
    "USER: ASSISTANT: User: Assistant: ### Instruction: ### Response: [INST] [/INST] <<SYS>> <Speech></Speech>",
    "system user assistant model A male voice says: hello there, one two three four five six seven eight nine ten.",
    "Quelle langue parle-t-on? Le français. ¿Qué idioma se habla? Español. Какой язык? Русский.",
] * 4
POSITION_RULE = Chain(rules=(Hops(hop_samples=160), Conv(kernel=3, stride=2, padding=1), Windows(size=17)))
MARKS = ["<|im_start|>", "<|im_end|>"]


@lru_cache
def byte_level(*, with_bos: bool = False) -> PreTrainedTokenizerBase:
    """Byte-level BPE as GPT-2, Llama 3 and SmolLM2 have it; with a BOS token as Llama 3 has."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|begin|>", *MARKS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if with_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|im_end|>", unk_token="<|endoftext|>"
    )


@lru_cache
def _sentencepiece_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    names = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    vocabulary = {name: i for i, name in enumerate(names)}
    merges = [
        (name[:cut], name[cut:])
        for name in names
        for cut in range(1, len(name))
        if name[:cut] in vocabulary and name[cut:] in vocabulary
    ]
    return vocabulary, sorted(merges, key=lambda pair: vocabulary["".join(pair)])


@lru_cache
def llama_sentencepiece(*, legacy: bool = False) -> PreTrainedTokenizerBase:
    """A trained sentencepiece vocabulary behind transformers' Llama tokenizer.

    Its space before a text comes at the start of the whole (`legacy=False`), or, as in the tokenizer.json of Llama 2
    and Vicuna, from a normaliser that puts it behind every special token too.
    """
    vocabulary, merges = _sentencepiece_vocabulary()
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges)
    if legacy:
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return tokenizer


@lru_cache
def word_level() -> PreTrainedTokenizerBase:
    """Whole words; everything else is unknown, and white space is lost."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]", "[EOS]", *MARKS], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[EOS]")


TOKENIZERS = {
    "byte_level": byte_level,
    "byte_level_bos": lambda: byte_level(with_bos=True),
    "sentencepiece": llama_sentencepiece,
    "sentencepiece_legacy": lambda: llama_sentencepiece(legacy=True),
    "word_level": word_level,
}


@lru_cache
def processor_of(name: str, template: str = "plain", system: str = "") -> LalmProcessor:
    """A processor around one of `TOKENIZERS`."""
    return LalmProcessor.create(
        TOKENIZERS[name](),
        template=template,
        front_ends=[WhisperFrontEnd(padding="real")],
        position_rule=POSITION_RULE,
        system=system,
    )
