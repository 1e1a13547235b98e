"""What a kept result depends on, as one digest: the code that is run and every value that it uses.

    digest(train_one)           # changes with its source, what it calls, and what it reads
    digest({"width": 16})       # and with options, arrays to their last bit

Values are told apart by their content, wherever they are; what is installed goes by its name, and
so does what is of `mini`, of which the code counts once, module by module, with all that these
import: see `mini.course.imports`.
"""

import ast
import dataclasses
import dis
import functools
import hashlib
import inspect
import itertools
import site
import sys
import sysconfig
import textwrap
import types
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mini.course import imports
from mini.files import ROOT

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))
BY_NAME = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    np.ufunc,
    torch.dtype,
    torch.layout,
)
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
# What a class has by itself, or what says where it stands and not what it does.
OF_ALL_CLASSES = {
    *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__firstlineno__"),
    *("__static_attributes__", "__abstractmethods__", "_abc_impl", "__dataclass_params__"),
    *("__slotnames__", "__annotations_cache__"),
}


def digest(value: object) -> str:
    """A SHA-256 that two values share if they are equal in all that a computation could read.

    Of a function: its source, its defaults, and, digested likewise, the decorators and whatever
    variables around it are used in it, in its lambdas, comprehensions and inner functions. Of a
    class: its methods, attributes and bases. Of `mini`, but `mini.course`: what the modules do that
    are met in all of this, as values or in an `import` inside a function, and all that these
    import, but neither docstrings, comments and layout nor a module that is not used. Where code
    imports what only running it would tell, or a class has something that nothing can be told of,
    all of `mini` counts. Raises ValueError for a function without a source, and for a value that
    nothing can be told of, such as an open file.
    """
    walk = _Digests()
    found = walk.of(value)
    if not (walk.met or walk.names):  # only values, and none of mini
        return found
    code = imports.counted(walk.met, walk.names, ROOT)
    return _hashed("\0".join([found, *itertools.chain(*code.items())]))


class _Digests:
    """One walk through values and what they refer to; each is digested once.

    `met` are the modules of `mini` that it came upon, and `names` the attributes that are read in
    the code of the others: of a package, such an attribute may be a submodule.
    """

    def __init__(self):
        self.done: dict[int, str] = {}
        self.open: list[int] = []  # the values that the walk is in, the outermost first
        self.alive: list[object] = []  # whose id must not be given to another
        self.met: set[str] = set()
        self.names: set[str] = set()

    def of(self, value: object, name: str = "") -> str:
        if type(value) in PLAIN:
            return f"{type(value).__name__} {value!r}"
        key = id(value)
        if key in self.done:
            return self.done[key]
        if key in self.open:
            return f"the value {len(self.open) - self.open.index(key)} above"
        self.open.append(key)
        self.alive.append(value)
        try:
            text = "\0".join(self.parts(value, name))
        except RecursionError:
            raise _unknown(value, name) from None
        finally:
            self.open.pop()
        self.done[key] = _hashed(text)
        return self.done[key]

    def tried(self, value: object) -> str:
        """For what may have nothing to do with the result: what cannot be told is left out, but
        then all of `mini` counts, for it may use any. Of a function without source: its names."""
        if isinstance(value, types.FunctionType) and _is_made(value):
            code = value.__code__
            self.names |= _attributes(code)
            return f"{code.co_names} {code.co_varnames} {self.tried(code.co_consts)}"
        open_before = len(self.open)
        try:
            return self.of(value)
        except ValueError:
            del self.open[open_before:]
            self.names.add(imports.UNTOLD)
            return "unknown"

    def meet(self, module: object) -> None:
        if isinstance(module, str) and imports.is_of_mini(module):  # a class in C may have no name
            self.met.add(module)

    def read(self, source: str) -> str:
        """A source that counts as it stands; what it imports of `mini` is met."""
        named, names = imports.mentioned(source)
        self.met |= named
        self.names |= names
        return source

    def parts(self, value: object, name: str) -> Iterator[str]:
        kind = type(value)
        self.meet(kind.__module__)
        yield _full_name(kind)
        if hasattr(kind, "counts_as"):  # of the course's own: only this part moves numbers
            yield self.of(value.counts_as())
        elif isinstance(value, (np.ndarray, np.generic)):
            yield from self.array(np.asarray(value))
        elif isinstance(value, Tensor):
            yield from self.tensor(value)
        elif isinstance(value, torch.Generator):
            yield from self.tensor(value.get_state())
        elif isinstance(value, torch.device):
            pass  # where it runs is no part of what it finds
        elif isinstance(value, types.ModuleType):
            yield from self.module(value)
        elif isinstance(value, types.FunctionType):
            yield from self.function(value, name)
        elif isinstance(value, types.MethodType):
            yield from map(self.of, (value.__func__, value.__self__))
        elif isinstance(value, BY_NAME):
            yield f"{getattr(value, '__qualname__', value)} of {getattr(value, '__module__', '')}"
            owner = getattr(value, "__self__", None)
            if not isinstance(owner, (types.ModuleType, type(None))):
                yield self.of(owner, name)
        elif isinstance(value, type):
            yield from self.class_(value)
        elif isinstance(value, functools.partial):
            yield from map(self.of, (value.func, value.args, sorted(value.keywords.items())))
        elif isinstance(value, (staticmethod, classmethod)):
            yield self.of(value.__func__)
        elif isinstance(value, property):
            yield from map(self.of, (value.fget, value.fset, value.fdel))
        elif isinstance(value, dataclasses.Field):
            yield from map(self.of, (value.name, value.default, value.default_factory))
        elif isinstance(value, types.MappingProxyType):
            yield self.of(dict(value))
        elif isinstance(value, (set, frozenset)):
            yield from sorted(map(self.of, value))
            yield from self.attributes(value)
        elif isinstance(value, (list, tuple)):
            yield from map(self.of, value)
            yield from self.attributes(value)
        elif isinstance(value, dict):
            yield from (f"{self.of(key)}: {self.of(entry, name)}" for key, entry in value.items())
            yield from self.attributes(value)
        elif hasattr(value, "__wrapped__") and callable(value):  # functools.cache and its like
            yield self.of(value.__wrapped__)
        else:
            yield from self.object(value, name)

    def array(self, array: np.ndarray) -> Iterator[str]:
        yield f"{array.dtype.descr if array.dtype.names else array.dtype.str} {array.shape}"
        if array.dtype.hasobject:
            yield self.of(array.tolist())
        elif array.size:
            yield hashlib.sha256(np.ascontiguousarray(array).data.cast("B")).hexdigest()

    def tensor(self, tensor: Tensor) -> Iterator[str]:
        yield f"{tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}"
        plain = tensor.detach().to_dense().cpu().resolve_conj().resolve_neg()
        if plain.numel():
            content = plain.contiguous().flatten().view(torch.uint8)
            yield hashlib.sha256(content.numpy().data).hexdigest()

    def module(self, module: types.ModuleType) -> Iterator[str]:
        self.meet(module.__name__)
        yield module.__name__
        if not _is_ours(module.__name__):
            return
        path = Path(module.__file__) if getattr(module, "__file__", None) else None
        if path and path.is_file():
            paths = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
            yield from (self.read(other.read_text("utf-8")) for other in paths)
        for name, value in sorted(vars(module).items()):
            if not name.startswith("__"):
                yield f"{name}: {self.tried(value)}"

    def function(self, function: types.FunctionType, name: str) -> Iterator[str]:
        is_first = len(self.open) == 1
        module = function.__globals__.get("__name__", "")
        self.meet(module)
        self.meet(function.__module__)  # another, where a library's wrapper has taken its name
        is_read = is_first or _is_ours(module)
        yield function.__qualname__ if is_read else f"{module}.{function.__qualname__}"
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        around = {}
        for free, cell in cells:
            with suppress(ValueError):  # not filled yet
                around[free] = cell.cell_contents
        if not is_read:
            # Of a library, such as the wrapper that a decorator of torch made of our function.
            yield from (f"{free}: {self.tried(value)}" for free, value in sorted(around.items()))
            return
        source = self.read(_source(function))
        yield source
        self.names |= _attributes(function.__code__)  # a lambda has no text of its own
        yield from map(self.of, (function.__defaults__, function.__kwdefaults__))
        names = {*_names(function.__code__), *_decorators(source)} - around.keys()
        used = {n: function.__globals__[n] for n in names if n in function.__globals__}
        for other, value in sorted((around | used).items()):
            if not (other.startswith("__") and other.endswith("__")):
                yield f"{other}: {self.of(value, other)}"

    def class_(self, owner: type) -> Iterator[str]:
        self.meet(owner.__module__)
        yield _full_name(owner)
        if not _is_ours(owner.__module__):
            return
        yield from map(self.of, owner.__bases__)
        if type(owner) is not type:
            yield self.of(type(owner))
        with suppress(OSError, TypeError):  # a class of a cell has none
            source = self.read(textwrap.dedent(inspect.getsource(owner)))
            yield source
            known = vars(sys.modules[owner.__module__])
            yield from (self.tried(known[n]) for n in sorted(_decorators(source) & known.keys()))
        for name, value in sorted(vars(owner).items()):
            if name not in OF_ALL_CLASSES:
                yield f"{name}: {self.tried(value)}"

    def attributes(self, value: object) -> Iterator[str]:
        """What a list, tuple, set or dict of a kind of its own has beside its entries."""
        if type(value) not in (list, tuple, set, frozenset, dict):
            yield self.of(type(value))
            yield from self.of_state(getattr(value, "__dict__", {}))

    def of_state(self, state: dict) -> Iterator[str]:
        yield from (f"{self.of(key)}: {self.of(entry, str(key))}" for key, entry in state.items())

    def object(self, value: object, name: str) -> Iterator[str]:
        """Anything else: how it would be copied says all that it is made of."""
        if own := _library_name(value):
            yield own
            return
        yield self.of(type(value))
        try:
            made = value.__reduce_ex__(4)
        except Exception:
            raise _unknown(value, name) from None
        if isinstance(made, str):
            yield made
            return
        make, arguments, state, items, entries = (*made, None, None, None)[:5]
        yield self.of(make, name)
        yield from (self.of(argument, name) for argument in arguments)
        if isinstance(state, dict):
            yield from self.of_state(state)
        else:
            yield self.of(state, name)
        yield from map(self.of, items or ())
        yield from map(self.of, entries or ())


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of all that is defined in it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _codes(inner)


def _names(code: types.CodeType) -> Iterator[str]:
    """The global names that a function's code reads."""
    for part in _codes(code):
        for instruction in dis.get_instructions(part):
            if instruction.opname in LOADS:
                yield instruction.argval


def _attributes(code: types.CodeType) -> set[str]:
    """The attributes that a function's code reads, among its other names."""
    return {name for part in _codes(code) for name in part.co_names}


def _decorators(source: str) -> set[str]:
    """The names in the decorators and the bases of what `source` defines."""
    try:
        first = ast.parse(source).body[0]
    except (SyntaxError, IndexError):  # a lambda in the middle of a call
        return set()
    parts = [*getattr(first, "decorator_list", ()), *getattr(first, "bases", ())]
    nodes = (node for part in parts for node in ast.walk(part))
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def _source(function: types.FunctionType) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function.__code__))
    except (OSError, TypeError):
        raise ValueError(
            f"The source of {function!r} cannot be read: define it with def in a cell or file."
        ) from None


def _is_made(function: types.FunctionType) -> bool:
    """Is it one of ours that no source holds, such as those that a dataclass gets?"""
    if not _is_ours(function.__globals__.get("__name__", "")):
        return False
    try:
        inspect.getsource(function.__code__)
    except (OSError, TypeError):
        return True
    return False


@functools.cache
def _libraries() -> tuple[str, ...]:
    places = [sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib")]
    places += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple({str(Path(place).resolve()) for place in places if place})


def _is_ours(module: object) -> bool:
    """Is this module, by its name, a notebook's or a file of the reader's?"""
    if not isinstance(module, str):  # of a class written in C
        return False
    top = module.partition(".")[0]
    if imports.is_of_mini(module):
        return False
    if top == "__main__" or module not in sys.modules:
        return True
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        return False  # built in
    return not any(Path(file).resolve().is_relative_to(place) for place in _libraries())


def _library_name(value: object) -> str:
    """Of an object that a library made once for all, such as `scipy.stats.beta`; else empty."""
    module = type(value).__module__
    while isinstance(module, str) and module in sys.modules and not _is_ours(module):
        for name, other in list(vars(sys.modules[module]).items()):
            if other is value:
                return f"{module}.{name}"
        module = module.rpartition(".")[0]
    return ""


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _full_name(owner: type) -> str:
    """Without its module where that is a notebook's, which may be a file as well."""
    name = owner.__qualname__
    return name if _is_ours(owner.__module__) else f"{owner.__module__}.{name}"


def _unknown(value: object, name: str) -> ValueError:
    which = f"{name!r}, which" if name else "What"
    return ValueError(
        f"{which} an experiment uses is a {type(value).__module__}.{type(value).__qualname__}, and "
        "nothing tells one of these from another: make it inside the experiment's function."
    )
