"""The small language model: its corpus, its tokenizer and its batches.

Names load on first use: importing this package loads no other module of it.
"""

from moe_course.lazy import face

_HOME = {
    "Document": "document",
    "Cloze": "facts",
    "Corpus": "corpus",
    "load": "corpus",
    "Tokenizer": "tokenizer",
    "train_tokenizer": "tokenizer",
    "tokenizer_from_json": "tokenizer",
    "Tokens": "batching",
    "Batch": "batching",
    "tokens": "batching",
    "batches": "batching",
    "windows": "batching",
}

__all__, __getattr__, __dir__ = face(__name__, _HOME)
