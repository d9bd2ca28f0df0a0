"""How Sphinx builds the site: python -m sphinx -W -b html docs site."""

project = "r1jax"
extensions = ["myst_parser"]
exclude_patterns = ["conf.py"]
html_theme = "furo"
html_title = "r1jax"
html_show_copyright = False
# Links may name the headings of other pages.
myst_heading_anchors = 3
# A block without a language is output or a picture, not Python.
highlight_language = "none"
