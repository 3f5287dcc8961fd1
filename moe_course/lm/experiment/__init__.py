"""The experiment of notebook 07: recipes and presets, one run from recipe to result, all runs, and their page.

It may import every other room of `lm`. Begin with `recipe.py` (what a run follows from) and `trial.py` (one run).
"""
