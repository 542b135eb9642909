"""How the documentation is built: ``python -m sphinx -W -b html docs docs/_build/html``.

With ``-D plot_gallery=0`` the examples are shown but not run. Nothing here needs a network.
"""

import shutil
import sys
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import restore  # noqa: E402

project = "restore"
author = "The restore developers"
copyright = "the restore developers"
release = version = restore.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
default_role = "py:obj"

html_theme = "furo"
html_title = f"restore {version}"
html_static_path = ["_static"]
html_css_files = ["restore.css"]
html_math_renderer = "mathml"
html_show_sphinx = False

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    # Scripts without plot_ are for the command line.
    "ignore_pattern": r"^(?!plot_)",
    "filename_pattern": r"[\\/]plot_",
    "within_subsection_order": "FileNameSortKey",
    "capture_repr": (),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "thumbnail_size": (480, 320),
}

# ---------------------------------------------------------------- formulas without a download: MathML


def visit_math(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def visit_displaymath(translator, node):
    translator.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


# ---------------------------------------------------------------- the picture on the first page


def choose_front_picture(app):
    """The picture on the first page is from the gallery; where that was not run, a placeholder stands for it."""
    images = HERE / "gallery" / "images"
    drawn = images / "sphx_glr_plot_inpainting_001.png"
    placeholder = images / "thumb" / "sphx_glr_plot_inpainting_thumb.png"
    shutil.copyfile(drawn if drawn.exists() else placeholder, images / "front.png")


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.connect("builder-inited", choose_front_picture, priority=900)  # after the gallery's own
