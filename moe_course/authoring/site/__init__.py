"""The course as a web site: `moe-course site`.

It may import what `authoring` may. Begin with `build.py`; `pages.py` makes a page of a notebook, and `extension.py`
is what Sphinx loads. Everything that is no code (the home page, the style, Sphinx's settings) is in the folder site/.
"""
