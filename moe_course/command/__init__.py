"""The `moe-course` command and what it starts: JupyterLab, tests, training, and questions about this machine.

It may import every other room, and none imports it. Begin with `cli.py`, which lists the commands.
"""
