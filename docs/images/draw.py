"""Draw the README's picture: python docs/images/draw.py"""

from pathlib import Path

import torch

from moe_course import viz
from moe_course.lesson import tiny
from moe_course.moe.router import switch_gate

torch.set_num_threads(1)
viz.use_style()
runs = {"renormalised gate": tiny.train(tiny.renormalised_top1, 0), "switch gate": tiny.train(switch_gate, 0)}
figure = viz.label_tables({name: run.table_after_GE for name, run in runs.items()})
figure.savefig(Path(__file__).with_name("sorted.svg"), metadata={"Date": None})
