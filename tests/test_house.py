"""Rules of the house: who may import whom, what is slow to import, and what every public name owes its users."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import operators
import restore

ROOTS = {package.__name__: Path(package.__file__).parent for package in (operators, restore)}
FILES = sorted(path for root in ROOTS.values() for path in root.rglob("*.py"))
SLOW = [
    "kornia",
    "diffusers",
    "lpips",
    "skimage",
    "cv2",
    "scipy",
    "PIL",
    "torchvision",
    "accelerate",
    "safetensors",
    "matplotlib",
]


def module_name(path):
    for name, root in ROOTS.items():
        if path.is_relative_to(root):
            inner = path.relative_to(root).with_suffix("").parts
            return ".".join([name, *(inner[:-1] if inner[-1] == "__init__" else inner)])
    raise AssertionError(path)


MODULES = {module_name(path): path for path in FILES}


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(tree, package="", lazy=True):
    """Full names of all that a file imports: ``from a import b`` counts as ``a`` and as ``a.b``.

    What only a type checker imports is left out, and with ``lazy=False`` what functions import.
    """
    found = set()
    queue = list(ast.iter_child_nodes(tree))
    while queue:
        node = queue.pop()
        if is_type_checking(node):
            queue += node.orelse
            continue
        if not lazy and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        queue += ast.iter_child_nodes(node)
    return found


def package_of(name):
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


def modules_imported(name, lazy=True):
    """The modules of ours that one of them imports."""
    tree = ast.parse(MODULES[name].read_text())
    return {other for other in imports(tree, package_of(name), lazy) if other in MODULES and other != name}


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_checks_themselves():
    """The functions above see what they are to see."""
    tree = ast.parse(
        "from __future__ import annotations\nimport a.b, c as d\nfrom e import f\n"
        "from . import g\nfrom ..h import i\nif TYPE_CHECKING:\n    import hidden\nelse:\n    import shown\n"
        "def function():\n    from lazy import late\n"
    )
    always = {"__future__", "__future__.annotations", "a.b", "c", "e", "e.f", "p.q", "p.q.g", "p.h", "p.h.i"}
    assert imports(tree, "p.q", lazy=False) == always | {"shown"}
    assert imports(tree, "p.q") == always | {"shown", "lazy", "lazy.late"}
    assert {"restore", "restore.methods.base", "operators.mask"} <= MODULES.keys()
    assert "restore.schedule" in modules_imported("restore.prior")
    assert "restore.export" in modules_imported("restore.prior") - modules_imported("restore.prior", False)


# ------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] == "operators"])
def test_operators_never_import_restore(name):
    found = imports(ast.parse(MODULES[name].read_text()), package_of(name))
    assert not {other for other in found if other.split(".")[0] == "restore"}


def test_operators_work_without_restore():
    code = "import sys; sys.modules['restore'] = None; import operators; operators.Mask; print('fine')"
    assert python(code) == "fine\n"


@pytest.mark.parametrize("package", ROOTS)
def test_modules_import_each_other_in_one_direction(package):
    """No cycle, where one module is imported while another is half made. (Imports in functions may point back.)"""
    graph = {}
    for name in MODULES:
        if name.split(".")[0] == package and name != package:
            # A package's own __init__ gathers its modules; they import each other by their full names.
            graph[name] = {m for m in modules_imported(name, lazy=False) if m != package}
            graph[name] -= {other for other in graph[name] if name.startswith(f"{other}.")}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"cycle: {' -> '.join(error.args[1])}")
    assert len(order) >= len(graph)


BOTTOM = [
    "restore.schedule",
    "restore.randomness",
    "restore.networks",
    "restore.files",
    "restore.images",
    "restore.quality",
    "restore.tiles",
]


@pytest.mark.parametrize("name", BOTTOM)
def test_the_bottom_stands_alone(name):
    own = {m for m in MODULES if m.startswith(f"{name}.")}  # What is a folder may be made of its own modules.
    for part in {name} | own:
        assert {m for m in modules_imported(part) if m.startswith("restore")} <= {
            "restore",
            "restore.files",
        } | {name} | own


# What a module never imports, not even in a function: what is above it in the design.
ABOVE = {
    "restore.prior": {
        "restore.samplers",
        "restore.methods",
        "restore.solve",
        "restore.training",
        "restore.cli",
    },
    "restore.samplers": {
        "restore.methods",
        "restore.solve",
        "restore.training",
        "restore.checkpoint",
        "restore.cli",
    },
    "restore.methods": {
        "restore.solve",
        "restore.training",
        "restore.checkpoint",
        "restore.data",
        "restore.cli",
    },
    "restore.networks": {"restore.prior", "restore.checkpoint", "restore.methods", "restore.solve"},
    "restore.memory": {"restore.prior", "restore.checkpoint", "restore.methods", "restore.solve"},
    "restore.zoo": {
        "restore.prior",
        "restore.checkpoint",
        "restore.networks",
        "restore.methods",
        "restore.solve",
    },
    "restore.checkpoint.files": {"restore.prior", "restore.networks", "restore.checkpoint.load"},
    "restore.checkpoint.native": {"restore.checkpoint.load", "restore.checkpoint.hub"},
    "restore.checkpoint.diffusers": {"restore.checkpoint.load", "restore.checkpoint.hub"},
    "restore.checkpoint.guided_diffusion": {"restore.checkpoint.load", "restore.checkpoint.hub"},
    "restore.checkpoint.lucidrains": {"restore.checkpoint.load", "restore.checkpoint.hub"},
    "restore.checkpoint": {
        "restore.samplers",
        "restore.methods",
        "restore.solve",
        "restore.training",
        "restore.cli",
    },
    "restore.data": {"restore.prior", "restore.methods", "restore.solve", "restore.training", "restore.cli"},
    "restore.metrics": {"restore.methods", "restore.solve", "restore.training", "restore.cli"},
    "restore.plots": {"restore.methods", "restore.solve", "restore.training", "restore.cli"},
    "restore.analytic": {"restore.methods", "restore.solve", "restore.training", "restore.cli"},
    "restore.solve": {"restore.training", "restore.data", "restore.benchmark", "restore.cli"},
    "restore.tasks": {"restore.training", "restore.data", "restore.benchmark", "restore.cli"},
    "restore.training": {"restore.benchmark", "restore.cli"},
    "restore.benchmark": {"restore.training", "restore.cli"},
}


@pytest.mark.parametrize("lower", ABOVE)
def test_nothing_imports_what_is_above_it(lower):
    for name in MODULES:
        if name == lower or name.startswith(f"{lower}."):
            found = modules_imported(name)
            assert not {m for m in found if any(m == u or m.startswith(f"{u}.") for u in ABOVE[lower])}, name


def test_methods_do_not_know_each_other():
    """A method's file is one algorithm box, with the hooks of the base alone."""
    apart = {"restore.methods.base", "restore.methods.auto"}  # What all build on, and what chooses among all.
    names = [n for n in MODULES if re.fullmatch(r"restore\.methods\.\w+", n) and n not in apart]
    assert len(names) >= 3
    allowed = {"restore.methods.base", "restore.prior", "restore.samplers", "restore.schedule", "restore"}
    for name in names:
        found = {m for m in modules_imported(name) if m.startswith("restore")}
        others = {m for m in found - allowed if m.startswith("restore.methods.")}
        # Variants of one method may build on it.
        assert len(others) <= 1, (name, others)


# ------------------------------------------------------------------------------------------- import time


def test_importing_restore_imports_nothing_slow():
    code = "import sys, restore; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = set(python(code).split())
    assert {"restore", "operators", "torch", "numpy"} <= loaded
    assert not loaded & set(SLOW)


def test_the_list_of_slow_modules_is_of_modules():
    """A misspelt name in it would never be found loaded."""
    import importlib.util

    known = [name for name in SLOW if importlib.util.find_spec(name)]
    assert set(SLOW) - set(known) <= {"matplotlib"}  # It comes with the documentation alone.


# ------------------------------------------------------------------------------------------- public names


@pytest.mark.parametrize("name", restore.__all__)
def test_every_public_name_exists_and_says_what_it_is(name):
    value = getattr(restore, name)
    assert len(inspect.getdoc(value) or "") > 20
    if inspect.isclass(value):
        assert "__doc__" in vars(value), "inherited"
        assert vars(value)["__doc__"]


@pytest.mark.parametrize("name", operators.__all__ if hasattr(operators, "__all__") else [])
def test_every_name_of_operators_exists_and_says_what_it_is(name):
    assert len(inspect.getdoc(getattr(operators, name)) or "") > 20


def test_public_names_are_listed():
    assert len(restore.__all__) == len(set(restore.__all__))
    assert set(restore.__all__) <= set(dir(restore))
    for name in restore.__all__:
        if inspect.isclass(getattr(restore, name)) and hasattr(operators, name):
            assert getattr(restore, name) is getattr(operators, name)


def test_an_unknown_name_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="no attribute 'slove'"):
        _ = restore.slove


def test_the_names_of_the_design_are_there():
    promised = [
        "solve",
        "load_prior",
        "Prior",
        "sample",
        "methods",
        "train",
        "Mask",
        "Blur",
        "Downsample",
        "Grayscale",
        "JPEG",
    ]
    assert set(promised) <= set(restore.__all__)


@pytest.mark.parametrize("info", restore.methods(), ids=lambda info: info.name)
def test_every_method_names_its_paper(info):
    # One paper (PiGDM) never went to arXiv.
    assert re.search(r"arXiv:\d{4}\.\d{4,5}\b|openreview \w{10,}", info.paper), info.paper
    assert re.search(r"\b20[12]\d\b", info.paper), "the year"
    method = restore.methods.REGISTRY[info.name]
    assert (method.__doc__ or "").strip()
    assert info.steps >= 1
    for need in info.needs:
        assert f'"{need}"' in restore.methods.Method.__doc__, f"{need} is not documented"
    for option in info.options:
        assert option in method.__doc__, f"{option} is not documented"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_and_public_function_says_what_it_is(name):
    tree = ast.parse(MODULES[name].read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            decorators = {ast.unparse(d) for d in node.decorator_list}
            assert ast.get_docstring(node) or "overload" in decorators, node.name


# ------------------------------------------------------------------------------------------- files


def test_nothing_is_called_utils():
    assert not [m for m in MODULES if {"utils", "util", "helpers", "common", "misc"} & set(m.split("."))]


def unsafe(tree):
    """Imports and calls that may execute what a file says."""
    banned = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    problems = sorted({n.split(".")[0] for n in imports(tree)} & banned)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called in ("torch.load", "load_state_dict_from_url") or called.endswith(
            ".load_state_dict_from_url"
        ):
            if options.get("weights_only") != "True":
                problems.append(called)
        elif called in ("np.load", "numpy.load"):
            if options.get("allow_pickle", "False") != "False":
                problems.append(called)
        elif called in ("eval", "exec"):
            problems.append(called)
    if any(n in ("torch.load", "torch.hub.load") for n in imports(tree)):
        problems.append("from torch import load")
    return problems


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import pickle", ["pickle"]),
        ("def f():\n    from joblib import load", ["joblib"]),
        ("torch.load(p)", ["torch.load"]),
        ("torch.load(p, weights_only=False)", ["torch.load"]),
        ("torch.load(p, weights_only=flag)", ["torch.load"]),
        ("torch.load(p, weights_only=True)", []),
        ("from torch import load", ["from torch import load"]),
        ("np.load(p, allow_pickle=True)", ["np.load"]),
        ("np.load(p)", []),
        ("eval(s)", ["eval"]),
        ("network.eval()", []),
    ],
)
def test_the_check_for_pickles_sees_them(code, expected):
    assert unsafe(ast.parse(code)) == expected


@pytest.mark.parametrize("name", MODULES)
def test_no_file_executes_pickles(name):
    assert unsafe(ast.parse(MODULES[name].read_text())) == []


def test_every_package_is_typed():
    assert all((root / "py.typed").is_file() for root in ROOTS.values())
