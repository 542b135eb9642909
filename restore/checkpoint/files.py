"""Reading files that others wrote: nothing in them is executed, and what is wrong with them is said."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

#: The name of every configuration.
CONFIG = "config.json"
#: The suffixes of files with weights.
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON, or holds something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{str(path)!r} is missing: the folder is no prior, or was not copied whole"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(path)!r} holds no configuration (expected an object, found a {type(content).__name__})"
        )
    return content


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a file of weights holds, on the CPU: tensors by name, for files of trainers in dictionaries by name.

    A file of torch is read with ``weights_only=True``: tensors and plain values, never code. Its tensors stay on the
    disk until they are used, so that the optimizer's state in a trainer's file costs no memory.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, would run code, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise ValueError(
                f"{str(path)!r} is damaged or no safetensors file ({error}): fetch it again"
            ) from error
    archive = zipfile.is_zipfile(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except MemoryError:
        raise
    except Exception as error:  # A damaged file makes torch raise anything, from EOFError to struct.error.
        raise ValueError(f"{str(path)!r} {_what_is_wrong(path, archive, str(error))}") from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{str(path)!r} holds a {type(content).__name__}, expected tensors by name (a state_dict)"
        )
    return {str(name): value for name, value in content.items()}


def _what_is_wrong(path: Path, archive: bool, message: str) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    code = re.search(r"GLOBAL ([\w.]+)", message)
    # An instruction that torch refuses, in what is a pickle (which begins with this byte), could be one that runs code.
    if code or ("Unsupported operand" in message and (archive or start[:1] == b"\x80")):
        return (
            f"would run code while it is read{f' ({code[1]})' if code else ''}: it was refused, and nothing of it was "
            f"executed. Ask its author for the weights alone (safetensors, or the state_dict), or, if you trust it, "
            f"save them yourself from the program that it belongs to"
        )
    if start == b"PK" and not archive:
        return "is cut off: fetch it again"
    reason = message.splitlines()[0] if message else "it is empty"
    return f"is damaged, or no file of torch.save ({reason}): fetch it again"


def only_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors among the entries, floating-point ones in float32."""
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    return {name: v.float() if v.is_floating_point() else v for name, v in tensors.items()}


def check_tensors(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor], source: str, *, kind: str
) -> None:
    """Refuses tensors that do not fit: every one must be there, have its shape, and none may be left over.

    Args:
        expected: The shapes by name.
        found: The tensors by name.
        source: What the message calls where they are from.
        kind: What the message says the network is of.

    Raises:
        ValueError: If tensors are missing, unknown, or of another shape; the message names them.
    """
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    wrong = [
        f"{name} is {tuple(found[name].shape)}, expected {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name].shape) != expected[name]
    ]
    problems = [
        *(
            f"{len(names)} {word} tensors (first: {names[0]})"
            for word, names in (("missing", missing), ("unknown", unknown))
            if names
        ),
        *(wrong[:3]),
    ]
    if problems:
        raise ValueError(f"{source!r} does not fit the network of {kind}: {'; '.join(problems)}")


def fill(network: nn.Module, found: Mapping[str, Tensor], source: str, *, kind: str = "its config") -> None:
    """Fills a network with tensors by name, after :func:`check_tensors`; it stays as it is if they do not fit."""
    check_tensors({n: tuple(v.shape) for n, v in network.state_dict().items()}, found, source, kind=kind)
    network.load_state_dict(dict(found))
