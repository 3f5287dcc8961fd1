"""The training of a decoder: objective, one update, the loop, checkpoints, several processes, and what it costs.

It may import `model`. Begin with `trainer.py`; one update is in `step.py`.
"""
