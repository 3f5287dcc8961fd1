"""From text to batches: documents by domain, the tokenizer, windows of tokens, and the cache of what was built.

It imports no other room of `lm`. Begin with `build.py`, which holds `load`.
"""
