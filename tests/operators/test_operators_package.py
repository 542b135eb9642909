import ast
import pathlib
import subprocess
import sys

import operators

FOLDER = pathlib.Path(operators.__file__).parent


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports could hide where they lead"
            yield node.module


def test_operators_never_import_restore():
    files = list(FOLDER.rglob("*.py"))
    assert len(files) > 8
    for file in files:
        for module in imported(ast.parse(file.read_text())):
            assert module.split(".")[0] != "restore", f"{file.name} imports {module}"


def test_the_check_above_can_fail():
    assert "restore.solve" in imported(ast.parse("def f():\n    from restore.solve import solve"))


def test_import_is_light():
    """Only torch and numpy: what is slow to import is imported where it is used."""
    code = (
        "import sys, torch, numpy; before = set(sys.modules); import operators; "
        "print(' '.join({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER.parent
    )
    new = set(result.stdout.split())
    assert "operators" in new
    assert not new & {"kornia", "skimage", "cv2", "PIL", "scipy", "torchvision", "diffusers", "restore"}


def test_public_names():
    for name in operators.__all__:
        thing = getattr(operators, name)
        assert thing.__doc__, f"{name} has no docstring"
