"""The small language model, in four rooms: corpus, model, training and experiment.

It may import `systems`, `moe`, `hardware`, `config` and `shapes`; each room says in its own `__init__.py` which other
rooms it may import. Begin with `training/trainer.py`, or with `experiment/trial.py`, which uses all rooms. Names load
on first use: importing this package loads no other module of it.
"""

from moe_course.lazy import lazy_exports

_HOME = {
    "Document": "corpus.document",
    "Cloze": "corpus.facts",
    "Corpus": "corpus.build",
    "load": "corpus.build",
    "Tokenizer": "corpus.tokenizer",
    "train_tokenizer": "corpus.tokenizer",
    "tokenizer_from_json": "corpus.tokenizer",
    "Tokens": "corpus.batching",
    "Batch": "corpus.batching",
    "encode_split": "corpus.batching",
    "batches": "corpus.batching",
    "windows": "corpus.batching",
    "LMConfig": "model.lm_config",
    "TrainConfig": "model.lm_config",
    "Transformer": "model.transformer",
    "TransformerBlock": "model.transformer",
    "KVCache": "model.transformer",
    "moe_objective": "training.objective",
    "bits_per_byte": "training.objective",
    "learning_rate": "training.step",
    "train_step": "training.step",
    "train": "training.trainer",
    "evaluate": "training.trainer",
    "load_model": "training.run_folder",
    "sample_next": "model.sample",
    "generate": "model.sample",
    "decode": "model.decode",
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOME)
