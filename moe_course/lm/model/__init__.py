"""The decoder: its configuration, its layers, and sampling from it.

It imports no other room of `lm`. Begin with `transformer.py`.
"""
