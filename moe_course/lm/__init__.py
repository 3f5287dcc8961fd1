"""The small language model: corpus, tokenizer and batches; decoder, trainer, checkpoints and sampling.

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
    "LMConfig": "config",
    "TrainConfig": "config",
    "Transformer": "transformer",
    "TransformerBlock": "transformer",
    "KVCache": "transformer",
    "moe_objective": "objective",
    "bits_per_byte": "objective",
    "learning_rate": "step",
    "train_step": "step",
    "train": "trainer",
    "evaluate": "trainer",
    "load_model": "run",
    "sample_next": "sample",
    "generate": "sample",
}

__all__, __getattr__, __dir__ = face(__name__, _HOME)
