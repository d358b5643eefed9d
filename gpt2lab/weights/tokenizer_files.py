"""A tokenizer in the files that transformers, vLLM, llama.cpp and KerasHub read.

Only `tokenizers`' JSON and GPT-2's own two files, plain enough for transformers 4 and 5.
"""

from typing import Any

from gpt2lab.durable import as_json
from gpt2lab.tokenizer import (
    END_OF_TEXT,
    CharTokenizer,
    DigitTokenizer,
    GPT2Tokenizer,
    Tokenizer,
)
from gpt2lab.tokenizer.gpt2 import gpt2_vocabulary, read_merges

NO_TOKEN = "<unk>"
"""In no vocabulary: with it, a text that has no ids is refused, not shortened."""

# Whatever Python's str.split takes for white space: \s leaves out the ASCII separators.
BETWEEN_DIGITS = r"[\s,\x{1C}-\x{1F}\x{85}]+"


def tokenizer_files(tokenizer: Tokenizer, context: int) -> dict[str, bytes]:
    """The files by their names.

    Args:
        context: tokens that the model can read at once.
    """
    special = special_tokens(tokenizer)
    config: dict[str, Any] = {
        "add_prefix_space": False,
        **special,
        # else transformers 4 takes spaces out of a text before signs such as "."
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    files = {}
    if isinstance(tokenizer, GPT2Tokenizer):
        config |= {"errors": "replace", "tokenizer_class": "GPT2Tokenizer"}
        merges = (f"{first} {second}\n" for first, second in read_merges())
        files["vocab.json"] = as_json(gpt2_vocabulary())
        files["merges.txt"] = "".join(["#version: 0.2\n", *merges]).encode()
    files["tokenizer.json"] = as_json(pipeline(tokenizer))
    files["tokenizer_config.json"] = as_json(config)
    files["special_tokens_map.json"] = as_json(special)
    return files


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """GPT-2 has one special token, which stands for all."""
    if tokenizer.end_of_text is None:
        return {}
    names = ["bos_token", "eos_token"]
    if isinstance(tokenizer, GPT2Tokenizer):
        names.append("unk_token")
    return dict.fromkeys(names, END_OF_TEXT)


def pipeline(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer.json: what becomes of a text, stage by stage, and of ids."""
    added = []
    if tokenizer.end_of_text is not None:
        whole = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added = [{"id": tokenizer.end_of_text, "content": END_OF_TEXT, **whole, "special": True}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        **stages(tokenizer),
    }


def stages(tokenizer: Tokenizer) -> dict[str, Any]:
    if isinstance(tokenizer, GPT2Tokenizer):
        return byte_pairs()
    if isinstance(tokenizer, CharTokenizer):
        # every character, line ends too
        cut, joined = split(r"[\s\S]", "Isolated"), {"type": "Fuse"}
        return words(vocabulary_of_characters(tokenizer), cut, joined)
    assert isinstance(tokenizer, DigitTokenizer)
    digits = {str(digit): digit for digit in range(tokenizer.vocab_size)}
    # without a decoder there is a space between two tokens
    return words(digits, split(BETWEEN_DIGITS, "Removed"), None)


def vocabulary_of_characters(tokenizer: CharTokenizer) -> dict[str, int]:
    vocabulary = {character: number for number, character in enumerate(tokenizer.characters)}
    if tokenizer.end_of_text is not None:
        vocabulary[END_OF_TEXT] = tokenizer.end_of_text
    return vocabulary


def byte_pairs() -> dict[str, Any]:
    """GPT-2's: the pattern of its pieces is the library's own."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "pre_tokenizer": byte_level,
        "post_processor": byte_level | {"trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": gpt2_vocabulary(),
            "merges": [" ".join(pair) for pair in read_merges()],
        },
    }


def split(pattern: str, behavior: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": behavior,
        "invert": False,
    }


def words(
    vocabulary: dict[str, int], cut: dict[str, Any], joined: dict[str, Any] | None
) -> dict[str, Any]:
    """A text cut into words, each of them an id."""
    return {
        "pre_tokenizer": cut,
        "post_processor": None,
        "decoder": joined,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": NO_TOKEN},
    }
