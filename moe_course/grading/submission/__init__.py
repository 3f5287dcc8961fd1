"""What was handed in: whose it is, which notebook it answers, and its repair.

It may import `exercises`. Begin with `intake.py`; `collection.py` reads folders and zips, `repair.py` mends
notebooks.
"""
