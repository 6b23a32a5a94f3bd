"""How Sphinx builds this site: ``sphinx-build -W -n --keep-going docs docs/_build``, without any network."""

from __future__ import annotations

import taylorism

project = "taylorism"
author = copyright = "the taylorism developers"
release = version = taylorism.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_parser"]
exclude_patterns = ["_build"]
# What stands between single backquotes in a docstring is linked where it is a name of this package.
default_role = "autolink"

html_theme = "pydata_sphinx_theme"
html_title = f"taylorism {version}"
html_theme_options = {"navigation_with_keys": True, "show_prev_next": True}
html_show_sourcelink = False

myst_heading_anchors = 3

# The docstrings say the types in words; the annotations, Any above all, would add nothing but length.
autodoc_typehints = "none"
# An extra, whose protocols are the bases of two classes.
autodoc_mock_imports = ["jobmon"]
autodoc_member_order = "bysource"
# Summaries of the methods would repeat what stands right below them.
numpydoc_show_class_members = False

# The site is built without a network, hence without the inventories of other sites.
nitpick_ignore = [
    ("py:class", "logging.Logger"),
    ("py:class", "footprints.FootprintBase"),
]
nitpick_ignore_regex = [
    # `autolink` wants a link for whatever can be imported: traceback, numpy.ndarray, copy.deepcopy. What is not of
    # this package has no page here, and neither have its private modules.
    ("py:obj", r"(?!taylorism\.).*"),
    ("py:obj", r"taylorism\._.*"),
]
