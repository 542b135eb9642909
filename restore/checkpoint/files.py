"""Reading files that others wrote: nothing in them is executed, and what is wrong with them is said."""

from __future__ import annotations

import json
import mmap
import re
import zipfile
from collections.abc import Callable, Mapping
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
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{str(path)!r} is missing: the folder is no prior, or was not copied whole"
        ) from None
    return parse_json(data, str(path))


def parse_json(data: str | bytes, source: str) -> dict[str, Any]:
    """The object in JSON text.

    Raises:
        ValueError: If it is no JSON, or holds something else than an object; ``source`` is what the message calls it.
    """
    try:
        content = json.loads(data if isinstance(data, str) else data.decode())
    except (ValueError, RecursionError) as error:  # No JSON, no UTF-8, a number without end, or too deep.
        raise ValueError(f"{source!r} is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{source!r} holds no configuration (expected an object, found a {type(content).__name__})"
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
    if archive:
        _check_archive(path)
    _check_instructions(path, archive)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # A damaged file makes torch raise anything, from EOFError to struct.error.
        raise ValueError(f"{str(path)!r} {_what_is_wrong(path, archive, str(error))}") from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{str(path)!r} holds a {type(content).__name__}, expected tensors by name (a state_dict)"
        )
    return {str(name): value for name, value in content.items()}


def _check_archive(path: Path) -> None:
    """Refuses an archive that unpacks to more than it is: torch.save never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): fetch it again") from error
    if unpacked > path.stat().st_size:
        raise ValueError(
            f"{str(path)!r} has {path.stat().st_size:,} bytes and says that it unpacks to {unpacked:,}: torch.save "
            f"writes no such file, and it was not read"
        )
    if any(
        entry.compress_type != zipfile.ZIP_STORED for entry in entries
    ):  # What it says may be less than it is.
        raise ValueError(
            f"{str(path)!r} is compressed: torch.save writes no such file, and it was not read. Convert it to "
            f"safetensors where you trust it"
        )


def _check_instructions(path: Path, archive: bool) -> None:
    """Refuses instructions that torch follows, run no code, and can ask for any amount of memory."""
    word = b"bytearray"
    if archive:
        try:
            with zipfile.ZipFile(path) as parts:
                found = any(
                    word in parts.read(name) for name in parts.namelist() if name.lower().endswith(".pkl")
                )
        except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{str(path)!r} is damaged ({error}): fetch it again") from error
    elif path.stat().st_size == 0:  # What cannot be mapped; torch says what is wrong with it.
        return
    else:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = content.find(word) >= 0
    if found:
        raise ValueError(
            f"{str(path)!r} would make a bytearray, which no file of tensors needs and which could take any amount of "
            f"memory: it was refused, and nothing of it was read. Convert it to safetensors where you trust it"
        )


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


def only_tensors(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors among the entries, as they are in the file: nothing is copied.

    A tensor is a view of a part of a file, and a view can repeat: a file of a few bytes can hold a tensor of
    terabytes. So each must have as many bytes as it takes.

    Args:
        content: What the file holds.
        path: The file.

    Raises:
        ValueError: If a tensor, or all together, are larger than what the file holds; the message names it.
    """
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    size = path.stat().st_size
    for name, value in tensors.items():
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ValueError(f"{str(path)!r}: {name} is no plain tensor (a {value.layout} on {value.device})")
        stored = min(value.untyped_storage().nbytes(), size)
        if value.nbytes > stored:
            raise ValueError(
                f"{str(path)!r}: {name} is {tuple(value.shape)}, which takes {value.nbytes:,} bytes, and the file "
                f"holds {stored:,} for it: it repeats them, and would fill the memory. If the file is yours, save "
                f"tensor.contiguous()"
            )
    total = sum(value.nbytes for value in tensors.values())
    if total > 2 * size:  # Twice: networks may share a tensor between two of their layers.
        raise ValueError(
            f"{str(path)!r} has {size:,} bytes, and its {len(tensors)} tensors take {total:,}: they are views of the "
            f"same values over and over, and would fill the memory"
        )
    return tensors


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
        ValueError: If tensors are missing, unknown, of another shape, or not finite; the message names them.
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
    values = {name: found[name] for name in expected if not found[name].is_meta}  # Plans have none.
    broken = sorted(name for name, value in values.items() if not bool(value.isfinite().all()))
    if broken:
        raise ValueError(
            f"{source!r} has numbers that are not finite in {len(broken)} tensors (first: {broken[0]}): the training "
            f"that made it failed, or the file is damaged"
        )


def check_depth(config: Mapping[str, Any], found: Mapping[str, Tensor], source: str) -> None:
    """Refuses a network of more blocks than a file has tensors, before any of them is made.

    Args:
        config: The arguments of the network.
        found: The tensors of the file.
        source: What the message calls the configuration.

    Raises:
        ValueError: If there are more.
    """
    levels = max((len(value) for value in config.values() if isinstance(value, (list, tuple))), default=1)
    layers = config.get("layers_per_block", 1)
    blocks = levels * max(1, layers if isinstance(layers, int) else 1)
    if blocks > len(found):
        raise ValueError(
            f"{source!r} describes {blocks:,} blocks, and the file of weights has {len(found):,} tensors: they do not "
            f"belong together"
        )


def assemble(
    build: Callable[[], nn.Module], found: Mapping[str, Tensor], source: str, *, kind: str, config: str
) -> nn.Module:
    """The network that ``build`` makes, filled with tensors by name.

    It is built without memory for its weights first, and compared: what a configuration asks for is only ever
    allocated if the file has as much.

    Args:
        build: Makes the network, with any weights.
        found: The tensors by name.
        source: What messages call the file with the tensors.
        kind: What a message says the network is of.
        config: What a message calls the configuration.

    Raises:
        ValueError: If nothing can be built, or tensors are missing, unknown, or of another shape.
    """
    network = blueprint(build, config)
    check_tensors(shapes_of(network), found, source, kind=kind)
    expected = {name: value.dtype for name, value in network.state_dict().items()}
    if any(name not in expected for name, _ in network.named_buffers()):
        network = build()  # What it computes for itself is in no file.
    # Copies, since what was read is a view of the file, which may change.
    own = {
        name: found[name].to(dtype, copy=True, memory_format=torch.contiguous_format)
        for name, dtype in expected.items()
    }
    network.load_state_dict(own, assign=True)
    return network


def blueprint(build: Callable[[], nn.Module], config: str) -> nn.Module:
    """The network that ``build`` makes, without memory for its weights: names and shapes alone.

    Raises:
        ValueError: If nothing can be built; ``config`` is what the message calls where its arguments are from.
    """
    try:
        with torch.device("meta"):
            return build()
    except Exception as error:  # What anybody wrote into a file makes the networks raise anything.
        why = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise ValueError(f"{config!r} describes nothing that can be built: {why}") from error


def fill(network: nn.Module, found: Mapping[str, Tensor], source: str, *, kind: str = "its config") -> None:
    """Fills a network with tensors by name, after :func:`check_tensors`; it stays as it is if they do not fit."""
    check_tensors(shapes_of(network), found, source, kind=kind)
    network.load_state_dict(dict(found))


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's tensors by name."""
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
