"""Sphinx's settings. `moe-course site` runs it on a folder with these files, docs/ and the executed notebooks."""

project = "How Mixture-of-Experts models work"
author = "the authors of moe-course"
extensions = ["myst_nb", "sphinx.ext.autodoc", "moe_course.authoring.site.extension"]

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["scroll.js"]
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False
html_show_search_summary = False  # a page that is opened from a disk may not read other files
html_domain_indices = html_use_index = False
html_math_renderer = "mathml"
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # they are run before, and each once
nb_merge_streams = True
nb_ipywidgets_js = {}  # controls need a kernel, and a script from elsewhere

default_role = "code"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
add_module_names = False
python_use_unqualified_type_names = True
nitpicky = True
