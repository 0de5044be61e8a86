"""A network of one's own: found from the working folder, called with what it takes, and tried on images."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from sweeper import schema
from sweeper.errors import BadInput, nearest, one_of
from sweeper.training import state
from sweeper.training.freeze import head_name, mark
from sweeper.words import counted

log = logging.getLogger(__name__)

KEY = "model.target"

_found: dict[str, str] = {}
"""The modules that were imported from a working folder, and which."""


def build_custom(model: schema.Model, in_channels: int, image_size: int, n_classes: int) -> nn.Module:
    """The network that ``model.target`` makes, with its layers under their own names.

    It is called with those of ``n_classes``, ``in_channels`` and ``image_size`` that it takes, and with
    ``model.arguments``, which come before them. Of ``**kwargs`` nobody knows what they take: they get all
    three, but for those that Python then says are unexpected.

    Raises:
        BadInput: if it cannot be found or called, or gives no logits for images of that size.
    """
    offered = {"n_classes": n_classes, "in_channels": in_channels, "image_size": image_size}
    target, probe = find(str(model.target)), (in_channels, image_size)
    with _working_folder(Path.cwd()), _seeded(torch.initial_seed()):
        network = _call(model, target, offered)
        if not isinstance(network, nn.Module):
            reason = f"gives a {type(network).__name__}, and no torch.nn.Module"
            raise BadInput(KEY, model.target, reason, "let it return the network")
        if isinstance(network, torch.jit.ScriptModule):
            reason = "gives a TorchScript network, whose layers do not show"
            raise BadInput(KEY, model.target, reason, "let it return the network as it is before torch.jit")
        if odd := [
            p.dtype for p in network.parameters() if p.is_floating_point() and p.dtype != torch.float32
        ]:
            reason = (
                f"has weights in {str(odd[0]).removeprefix('torch.')}; training.precision decides on that"
            )
            raise BadInput(KEY, model.target, reason, "let it return the network in float32: network.float()")
        called = _called(model, network, probe, n_classes)
        network.train()
    if next(network.parameters(), None) is None:
        raise BadInput(KEY, model.target, "has no parameters to train", "write another network's name")
    mark(network, _head(model, network, called, n_classes), probe)
    return network


def only_made(model: schema.Model, in_channels: int, image_size: int, n_classes: int) -> Any:
    """What ``model.target`` gives, without trying it on images: its tensors may be without values.

    Raises:
        BadInput: if it cannot be found or called.
    """
    offered = {"n_classes": n_classes, "in_channels": in_channels, "image_size": image_size}
    return _call(model, find(str(model.target)), offered)


def check(model: schema.Model, network: nn.Module, in_channels: int, image_size: int, n_classes: int) -> None:
    """Try a network from ``build_custom`` as it is in training, too, and on one image: some then give
    something else.

    Raises:
        BadInput: if it gives no logits, or none that its head could learn from.
    """
    if n_fixed := sum(p.numel() for p in network.parameters() if not p.requires_grad):
        never = "parameters by itself (requires_grad=False): they never train"
        _warn(f"{model.target} keeps {n_fixed:,} {never}")
    _refuse_unkept(model, network)
    probe, n = (in_channels, image_size), _n_images(n_classes)
    with _working_folder(Path.cwd()), _seeded(torch.initial_seed()):
        _logits(model, network, probe, 1, n_classes, training=False)
        with torch.enable_grad():
            for training in (False, True):
                logits = _logits(model, network, probe, n, n_classes, training)
                _refuse_probabilities(model, logits)
    learns = _reached(logits)
    if not any(
        id(parameter) in learns for parameter in network.get_submodule(head_name(network)).parameters()
    ):
        raise _no_gradient(model, head_name(network), has_any=bool(learns))


def _refuse_unkept(model: schema.Model, network: nn.Module) -> None:
    """Raises BadInput for what could not be kept of the trained network, or not be read again."""
    if (found := state.unkept(network)) is not None:
        name, why = found
        remedy = "make it in the constructor, or of dense tensors (register_buffer)"
        raise BadInput(KEY, model.target, f"its state has {name}, {why}, which no file can hold", remedy)
    try:
        same = repr(json.loads(json.dumps(model.arguments))) == repr(model.arguments)
    except TypeError:
        same = False
    if not same:
        reason = "has names or values that model.json could not hold"
        remedy = "write numbers, texts, true, false, null, lists, and values by names that are texts"
        raise BadInput("model.arguments", model.arguments, reason, remedy)


@cache
def _warn(line: str) -> None:
    """Once: a search tries a network for each combination of options."""
    log.warning(line)


def load(model: schema.Model) -> None:
    """Import the code of a network of one's own: what that sets for all of torch, a run then sets anew."""
    if model.source == "custom":
        find(str(model.target))


def fingerprint(model: schema.Model) -> str | None:
    """16 hex digits of the code of a network of one's own, with what that has from the working folder."""
    if model.source != "custom":
        return None
    target, code = find(str(model.target)), blake2b(digest_size=8)
    first = getattr(inspect.unwrap(target), "__module__", None) or type(target).__module__
    for name in sorted(_needed(first)):
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_file():
            code.update(name.encode() + Path(file).read_bytes())
    return code.hexdigest()


# ------------------------------------------------------------------------------------------------- finding


def find(target: str) -> Callable[..., Any]:
    """The function or class of that name, from the working folder or from what is installed.

    Raises:
        BadInput: if there is none; naming the line of the person's own file that cannot be executed.
    """
    parts, folder = target.split("."), Path.cwd()
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise BadInput(KEY, target, "is no name of a function in a module", _like(target))
    with _working_folder(folder):
        module, n_module = _import(target, parts, folder)
        found: Any = module
        for i, part in enumerate(parts[n_module:], start=n_module):
            if not hasattr(found, part):
                raise _no_attribute(target, ".".join(parts[:i]), part, found, folder)
            found = getattr(found, part)
    if isinstance(found, nn.Module):
        reason, remedy = "is one network, and each trial needs a new one", "write a function that returns it"
        raise BadInput(KEY, target, reason, remedy)
    if inspect.isfunction(found) and next(iter(inspect.signature(found).parameters), "") == "self":
        reason = "is a method, which needs an object of its class"
        raise BadInput(KEY, target, reason, "write a function that calls it, or the name of a class")
    if not callable(found):
        reason = f"is a value of type {type(found).__name__}, which cannot be called"
        raise BadInput(KEY, target, reason, "write the name of a function or a class")
    return found  # type: ignore[no-any-return]


def _import(target: str, parts: Sequence[str], folder: Path) -> tuple[ModuleType, int]:
    """The module in a dotted name, and how many parts of the name it takes."""
    before = set(sys.modules)
    try:
        # What is drawn at an import is the same whichever trial comes first, and shifts none of its draws.
        with torch.random.fork_rng(devices=[]), _seeded(0):
            torch.default_generator.manual_seed(0)
            for n in range(len(parts) - 1, 0, -1):
                name = ".".join(parts[:n])
                try:
                    return importlib.import_module(name), n
                except ModuleNotFoundError as error:
                    if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                        raise
    except (Exception, SystemExit) as error:
        _refuse(target, "cannot be imported", error, folder)
    finally:
        new = set(sys.modules) - before
        _found.update((name, str(folder)) for name in new if _is_below(sys.modules[name], folder))
    there = sorted(
        {path.stem for path in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/*.py")}
    )
    reason = f"there is no module {parts[0]} in {folder}, and none is installed"
    if (folder / parts[0]).is_dir() or (folder / f"{parts[0]}.py").exists():
        reason = f"there is no module {'.'.join(parts[:-1])} in {folder}"
    near = nearest(parts[0], there)
    raise BadInput(
        KEY, target, reason, f"did you mean {near}?" if near else "run it in the folder of the module"
    )


def _is_below(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and "site-packages" not in file and Path(file).is_relative_to(folder)


@contextmanager
def _working_folder(folder: Path) -> Iterator[None]:
    """The working folder comes first on Python's path meanwhile, and last afterwards.

    First, so that the person's module is found and no other of its name; not for ever, so that a file of a
    common name does not take the place of a library's that is imported later.
    """
    for name in [name for name, where in _found.items() if where != str(folder)]:
        sys.modules.pop(name, None)
        del _found[name]
    importlib.invalidate_caches()  # files written since
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def _no_attribute(target: str, where: str, name: str, found: Any, folder: Path) -> BadInput:
    file = Path(getattr(found, "__file__", None) or "?")
    top = where.partition(".")[0]
    if not file.is_relative_to(folder) and ((folder / f"{top}.py").exists() or (folder / top).is_dir()):
        reason = f"{top} is another module ({file}), not that of the working folder"
        return BadInput(KEY, target, reason, "rename the module of your own")
    names = [n for n, value in vars(found).items() if callable(value) and not n.startswith("_")]
    near = nearest(name, names)
    remedy = (
        f"did you mean {where}.{near}?"
        if near
        else one_of(name, names[:8])
        if names
        else "write a function or class of it"
    )
    return BadInput(KEY, target, f"{where} has no {name}", remedy)


def _like(target: str) -> str:
    """The remedy for a path of a file, or a name without a module."""
    path, _, name = target.replace("::", ":").partition(":")
    words = [word for word in path.removesuffix(".py").replace("\\", "/").split("/") if word not in ("", ".")]
    dotted = ".".join([*words, name] if name else words)
    is_whole = bool(dotted) and all(part.isidentifier() for part in dotted.split("."))
    if is_whole:
        return f"write {dotted if name else f'{dotted}.FUNCTION'}"
    return "write package.module.function, as Python imports it"


def _needed(first: str) -> set[str]:
    """A module, and those from the working folder of which it or they hold something."""
    needed, todo = set[str](), [first]
    while todo:
        name = todo.pop()
        if name in needed or name not in sys.modules:
            continue
        needed.add(name)
        for value in list(vars(sys.modules[name]).values()):
            of = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
            todo += [of] if of in _found else []
    return needed


# ------------------------------------------------------------------------------------------------- calling


def _call(model: schema.Model, target: Callable[..., Any], offered: Mapping[str, int]) -> Any:
    """What the target returns."""
    parameters, takes_more = _parameters(target)
    unknown = [name for name in model.arguments if name not in parameters and not takes_more]
    if unknown:
        own = [name for name in parameters if name not in offered]
        remedy = one_of(unknown[0], own) if own else "leave it out: it takes none"
        value = model.arguments[unknown[0]]
        raise BadInput(f"model.arguments.{unknown[0]}", value, f"{model.target} has no such argument", remedy)
    arguments = {name: value for name, value in offered.items() if takes_more or name in parameters}
    arguments |= model.arguments
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            key, size = f"model.arguments.{name}", _size_of(name)
            otherwise = f"{key}=VALUE, or a function that calls it"
            remedy = f"write {f'{key}={offered[size]}, or call it {size}' if size else otherwise}"
            raise BadInput(key, None, f"{model.target} needs it", remedy)
    while True:
        try:
            return target(**arguments)
        except (Exception, SystemExit) as error:
            unexpected = [
                name
                for name in offered
                if takes_more and name not in (*parameters, *model.arguments) and name in arguments
                if isinstance(error, TypeError) and f"unexpected keyword argument '{name}'" in str(error)
            ]
            if not unexpected:
                _refuse(model.target, "does not work", error, Path.cwd())
            del arguments[unexpected[0]]


_SIZES = {
    "n_classes": re.compile(r"class|label|n_?out|out_(features|dim)"),
    "in_channels": re.compile(r"chan|in_?planes|in_(features|dim)"),
    "image_size": re.compile(r"(ima?ge?|input|in)_?(size|res|dim|side)|resolution"),
}
"""Other names that people have for the sizes."""


def _size_of(name: str) -> str | None:
    """Which of the three sizes a parameter probably is."""
    return next((size for size, pattern in _SIZES.items() if pattern.search(name.lower())), None)


def _parameters(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Those that can be given by name, and whether there may be others."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # of a function in C
        return {}, True
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    by_name = {name: parameter for name, parameter in parameters.items() if parameter.kind in kinds}
    return by_name, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let a person's code draw from Python's and NumPy's own generators as from torch's: by the seed."""
    before, of_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(of_numpy)


# -------------------------------------------------------------------------------------------------- trying


def _n_images(n_classes: int) -> int:
    """How many to try: not as many as classes, so that rows are not taken for columns."""
    return 2 if n_classes != 2 else 3


def _called(
    model: schema.Model, network: nn.Module, probe: tuple[int, int], n_classes: int
) -> list[tuple[str, nn.Module]]:
    """The layers with parameters of their own, in the order in which a forward pass called them last.

    Raises:
        BadInput: if it fails, or gives no logits.
    """
    called: dict[str, nn.Module] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            called.pop(name, None)
            called[name] = module

        return hook

    layers = [
        (name, m)
        for name, m in network.named_modules()
        if next(m.parameters(recurse=False), None) is not None
    ]
    hooks = [module.register_forward_hook(keep(name)) for name, module in layers]
    try:
        with torch.no_grad():
            _logits(model, network, probe, _n_images(n_classes), n_classes, training=False)
    finally:
        for hook in hooks:
            hook.remove()
    return list(called.items())


def _logits(
    model: schema.Model,
    network: nn.Module,
    probe: tuple[int, int],
    n: int,
    n_classes: int,
    training: bool,
) -> Tensor:
    """What the network says of n random images.

    One thread: a process that has run more cannot be forked afterwards.

    Raises:
        BadInput: if it fails, or gives no logits.
    """
    in_channels, side = probe
    first = next(network.parameters(), None)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            network.train(training)
            images = torch.rand(n, in_channels, side, side, device=None if first is None else first.device)
            logits = network(images)
    except Exception as error:
        taken, takes_more = _parameters(find(str(model.target)))
        ignored = [name for name in ("in_channels", "image_size") if name not in taken and not takes_more]
        remedy = f"let it take {' and '.join(ignored)}, or " if ignored else ""
        remedy += "write another dataset.image_size or other model.arguments"
        if isinstance(error, TypeError) and "forward()" in str(error):
            remedy = "let its forward take the images alone"
        shape = f"fails on images of ({in_channels}, {side}, {side})"
        _refuse(model.target, shape, error, Path.cwd(), remedy)
    finally:
        torch.set_num_threads(n_threads)
    when = " in training" if training else " of one image" if n == 1 else ""
    if not isinstance(logits, Tensor):
        reason = f"gives a {type(logits).__name__}{when}, and no tensor"
        raise BadInput(KEY, model.target, reason, "let forward return the logits alone")
    if logits.shape != (n, n_classes) or not logits.is_floating_point():
        kind = "" if logits.is_floating_point() else f" of {logits.dtype}"
        wanted = f"logits of ({n}, {n_classes}) are needed for {counted(n, 'image')} and {n_classes} classes"
        reason = f"gives {tuple(logits.shape)}{kind}{when}; {wanted}"
        raise BadInput(KEY, model.target, reason, _for_classes(model, tuple(logits.shape), n_classes))
    return logits


def _for_classes(model: schema.Model, shape: tuple[int, ...], n_classes: int) -> str:
    """The remedy for logits of another shape: the argument that is their number, where there is one."""
    parameters, _ = _parameters(find(str(model.target)))
    given = {name: model.arguments.get(name, one.default) for name, one in parameters.items()}
    sizes = [name for name, value in given.items() if value == shape[-1] and _size_of(name) == "n_classes"]
    if len(shape) == 2 and sizes:
        return f"write model.arguments.{sizes[0]}={n_classes}, or call it n_classes"
    if len(shape) != 2:
        return "let forward return a row of logits for each image"
    return "let it take n_classes for the size of its last layer"


_SHAPING = re.compile(r"(View|Reshape|ReshapeAlias|UnsafeView|Squeeze|Select|Clone|ToCopy)Backward\d+$")
_PROBABILITIES = {"SoftmaxBackward0": "softmax", "SigmoidBackward0": "sigmoid"}


def _refuse_probabilities(model: schema.Model, logits: Tensor) -> None:
    """Raises BadInput for a network that ends with what the loss has, too: it would learn hardly anything."""
    node = logits.grad_fn
    while node is not None and _SHAPING.match(node.name()) and node.next_functions:
        node = node.next_functions[0][0]
    if node is not None and (end := _PROBABILITIES.get(node.name())):
        reason = (
            f"gives probabilities, as it ends with a {end}; logits are needed, the loss has one of its own"
        )
        raise BadInput(KEY, model.target, reason, f"leave the {end} out")


def _reached(logits: Tensor) -> set[int]:
    """The parameters, by identity, that gradients from the logits reach."""
    reached, seen, todo = set[int](), set[Any](), [logits.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            reached.add(id(variable))
        todo += [following for following, _ in node.next_functions]
    return reached


def _no_gradient(model: schema.Model, head: str, has_any: bool) -> BadInput:
    if has_any and model.head is not None:
        reason = f"nothing in it learns from the logits of {model.target}"
        return BadInput("model.head", model.head, reason, "write the name of the layer that gives them")
    reason = f"no gradient reaches its head, {head}"
    return BadInput(
        KEY,
        model.target,
        reason,
        "leave out no_grad, detach and requires_grad=False, or write model.head=NAME",
    )


def _head(
    model: schema.Model, network: nn.Module, called: Sequence[tuple[str, nn.Module]], n_classes: int
) -> str:
    """The name of the head: what ``model.head`` says, or the last layer that is called.

    That is a linear layer, or a convolution of one pixel with an output for each class. Behind a linear layer
    with an output for each class there may be others with parameters, as a scale.
    """
    names = [name for name, module in network.named_modules() if name]
    if model.head is not None:
        if model.head not in names:
            near = nearest(model.head, names)
            remedy = (
                f"did you mean {near}?" if near else one_of(model.head, [n for n in names if "." not in n])
            )
            raise BadInput("model.head", model.head, f"{model.target} has no such layer", remedy)
        return model.head
    found = None
    if called and (isinstance(called[-1][1], nn.Linear) or _classifies(called[-1][1], n_classes)):
        found = called[-1][0]
    else:
        linear = [n for n, m in called if isinstance(m, nn.Linear) and m.out_features == n_classes]
        found = linear[-1] if linear else None
    if not found:  # also the network itself
        last = ", ".join(name for name, _ in called[-4:] if name) or "none of it was called"
        reason = f"{model.target} ends with no linear layer that could be its head"
        raise BadInput("model.head", None, reason, f"write model.head=NAME of a layer (its last: {last})")
    return found


def _classifies(module: nn.Module, n_classes: int) -> bool:
    return (
        isinstance(module, nn.Conv2d) and module.out_channels == n_classes and set(module.kernel_size) == {1}
    )


def _refuse(
    target: str | None,
    what: str,
    error: BaseException,
    folder: Path,
    otherwise: str = "write other model.arguments, or another model.target",
) -> NoReturn:
    """Raises BadInput with the line of the person's own file where it went wrong.

    Args:
        otherwise: the remedy where that is none of theirs, so that the command does not suit what it calls.
    """
    if isinstance(error, BadInput):
        raise error
    said = next(iter(str(error).strip().splitlines()), "")
    name = type(error).__name__
    why = f"{name}: {said}" if said else name
    remedy = "mend it there"
    if isinstance(error, SystemExit):
        why, remedy = "it ends the program", "put what it runs below if __name__ == '__main__':"
    place = _place(error, folder)
    if place is None:
        remedy = otherwise
    raise BadInput(KEY, target, f"{what}: {f'{place}: ' if place else ''}{why}", remedy) from error


def _place(error: BaseException, folder: Path) -> str | None:
    """The innermost line below the working folder, or else of neither torch nor us."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_near(error.filename, folder)}, line {error.lineno}"
    frames = [(f.filename, f.lineno) for f in _frames(error.__traceback__)]
    own = [frame for frame in frames if frame[0] and Path(frame[0]).is_relative_to(folder)]
    own = [frame for frame in own if "site-packages" not in frame[0] and not _is_ours(frame[0])]
    if not own:
        return None
    return f"{_near(own[-1][0], folder)}, line {own[-1][1]}"


def _frames(trace: TracebackType | None) -> traceback.StackSummary:
    return traceback.extract_tb(trace)


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(Path(__file__).parents[1])


def _near(file: str, folder: Path) -> str:
    path = Path(file)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else file
