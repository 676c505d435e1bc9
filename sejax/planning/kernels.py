"""What a traced function makes a device do: kernels one after the other, with their operations and bytes, and memory.

The jaxpr is read, so nothing is compiled and no device is needed. A kernel is what a compiler makes of operations that
it fuses: a reduction with the arithmetic that leads to its operand, a matrix product with the arithmetic on its result,
or arithmetic whose result something else has to read from memory. The body of a loop counts as often as it runs.

XLA's own analysis of a program (`Lowered.cost_analysis`) counts the body of a loop once, and knows no kernels before it
has compiled.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import jax
from jax.extend import core


class Kernel(NamedTuple):
    """Operations that a device does as one."""

    name: str  # of the primitive that it ends with
    times: int  # how often it runs, one after the other
    products: float  # operations of matrix products, two per multiplication
    narrow: bool  # whether the product's operands have at most 16 bits
    operations: float  # all other arithmetic, an operation per element (`_OPERATIONS`)
    bytes: int  # read and written, each array once


@dataclass(frozen=True)
class Work:
    """The kernels of a function, and the most bytes that its intermediate arrays take at any time."""

    kernels: tuple[Kernel, ...]
    temporary: int

    @property
    def launches(self) -> int:
        """How many kernels run one after the other."""
        return sum(kernel.times for kernel in self.kernels)

    @property
    def products(self) -> float:
        """The operations of all matrix products."""
        return sum(kernel.times * kernel.products for kernel in self.kernels)

    @property
    def bytes(self) -> int:
        """The bytes that all kernels read and write."""
        return sum(kernel.times * kernel.bytes for kernel in self.kernels)


def work_of(function: Callable[..., Any], *arguments: Any) -> Work:
    """Counts the work of a function of arrays. A loop that ends by a condition counts as one turn.

    Args:
      arguments: trees of arrays or of `jax.ShapeDtypeStruct`.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


_OPERATIONS = {
    **dict.fromkeys(("exp", "exp2", "log", "log1p", "expm1", "tanh", "logistic", "sin", "cos", "erf", "pow"), 10),
    "random_bits": 12,  # a hash (sejax.nn.generator)
    **dict.fromkeys(("div", "sqrt", "rsqrt", "rem", "integer_pow"), 4),
    **dict.fromkeys(("broadcast_in_dim", "convert_element_type", "iota", "slice", "split", "transpose", "select_n"), 0),
    **dict.fromkeys(("concatenate", "pad", "rev", "dynamic_slice", "dynamic_update_slice", "gather"), 0),
}
"""Of an element; of those that are not here, one. They are roughly the instructions of a vector unit."""
_VIEWS = {"reshape", "squeeze", "expand_dims", "copy", "stop_gradient", "optimization_barrier", "bitcast_convert_type"}
"""They compute nothing and move nothing: the result is the operand."""
_CALLS = {"pjit", "jit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call"}
_CALLS |= {"custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call"}
_PRODUCTS = {"dot_general", "conv_general_dilated"}
_LOOPS = {"scan", "while", "cond"}
_TURN = 5
"""Kernels of a loop's turn beside those of its body: parts of what it reads, results put in their place, its counter.

A program compiled for an H200 has 37 kernels for two turns of an LSTM, forward and backward, whose bodies have 8.
"""
_PARTS = {"gather", "dynamic_slice"}
"""They read as much of their operand as they return."""
_UPDATES = {"scatter": 2, "scatter-add": 2, "dynamic_update_slice": 1}
"""They read and write as much as the operand at this place holds: the rest of the result is there."""
_ALONE = {*_PARTS, *_UPDATES, "sort", "cumsum", "cumlogsumexp", "cummax", "cumprod", "top_k"}


def _nbytes(aval: Any) -> int:
    dtype = aval.dtype
    size = 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else dtype.itemsize
    return math.prod(aval.shape) * size


@dataclass(eq=False, repr=False)
class _Value:
    """An array of the function, or what is left of it where fused kernels compute it anew."""

    aval: Any
    by: "_Step | None" = None  # None: an argument
    readers: "list[_Step]" = field(default_factory=list)
    stored: bool = False
    leaves: "frozenset[_Value]" = frozenset()  # stored values that it is computed from; itself, if it is stored
    way: "frozenset[_Step]" = frozenset()  # the steps from these; none, if it is stored
    part_of: "_Value | None" = None  # the stored value that it is a slice of, which takes no kernel and no memory

    @property
    def nbytes(self) -> int:
        return _nbytes(self.aval)

    @property
    def whole(self) -> "_Value":
        """The value whose memory it lies in."""
        return self.part_of or self


@dataclass(eq=False, repr=False)
class _Step:
    """An equation whose calls are inlined."""

    equation: Any
    inputs: list[_Value]
    outputs: list[_Value]
    place: int

    @property
    def name(self) -> str:
        return self.equation.primitive.name

    @property
    def operands(self) -> list[Any]:
        """The shapes and types of the inputs, as this step sees them."""
        return [atom.aval for atom in self.equation.invars]

    @property
    def results(self) -> list[Any]:
        """The shapes and types of the outputs."""
        return [variable.aval for variable in self.equation.outvars]

    @property
    def fuses(self) -> bool:
        """Whether a kernel that reads the result can compute it."""
        name = self.name
        return not (name in _PRODUCTS or name in _LOOPS or name in _ALONE or name.startswith(("reduce_", "arg")))


def _inlined(jaxpr: Any, arguments: Sequence[_Value], number: Iterator[int]) -> tuple[list[_Step], list[_Value]]:
    """Returns the equations of a jaxpr in turn, those of its calls in their place, and its results."""
    values: dict[Any, _Value] = dict(zip(jaxpr.invars, arguments, strict=True))
    for variable in jaxpr.constvars:
        values[variable] = _argument(variable)

    def read(atom: Any) -> _Value:
        if isinstance(atom, core.Literal):
            return _Value(atom.aval)
        return values[atom]

    steps = []
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        if name in _CALLS:
            inner = _inner(equation)
            constants = [_argument(variable) for variable in inner.jaxpr.constvars]
            n = len(inner.jaxpr.invars)
            own = inner.jaxpr.replace(constvars=[], invars=[*inner.jaxpr.constvars, *inner.jaxpr.invars])
            of_call, outputs = _inlined(own, [*constants, *(inputs[-n:] if n else [])], number)
            steps += of_call
        elif name in _VIEWS:
            outputs = inputs[: len(equation.outvars)]
        else:
            step = _Step(equation, inputs, [], next(number))
            step.outputs = outputs = [_Value(variable.aval, step) for variable in equation.outvars]
            steps.append(step)
        values |= dict(zip(equation.outvars, outputs, strict=True))
    return steps, [read(atom) for atom in jaxpr.outvars]


def _argument(variable: Any) -> _Value:
    """Returns a value that lies in memory before the first step."""
    value = _Value(variable.aval, stored=True)
    value.leaves = frozenset([value])
    return value


def _inner(equation: Any) -> Any:
    """Returns the closed jaxpr of a call."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr", "call"):
        if (found := equation.params.get(name)) is not None:
            return found if hasattr(found, "consts") else core.ClosedJaxpr(found, ())
    raise AssertionError(f"the call {equation.primitive} has no jaxpr")


def _count(jaxpr: Any) -> Work:
    """Counts the kernels of a jaxpr whose arguments lie in memory."""
    arguments = [_argument(variable) for variable in jaxpr.invars]
    steps, results = _inlined(jaxpr, arguments, count())
    needed = _needed(steps, results)
    steps = [step for step in steps if any(value in needed for value in step.outputs)]
    for step in steps:
        for value in set(step.inputs):
            value.readers.append(step)
    _decide(steps, set(results))
    return Work(*_fused(steps, set(results)))


def _needed(steps: Sequence[_Step], results: Sequence[_Value]) -> set[_Value]:
    """Returns the values that the results depend on."""
    needed = set(results)
    for step in reversed(steps):
        if any(value in needed for value in step.outputs):
            needed.update(step.inputs)
    return needed


def _decide(steps: Sequence[_Step], results: set[_Value]) -> None:
    """Decides which values are stored: what no kernel can compute in passing, and what costs less to read than that."""
    for step in steps:
        inputs = list(dict.fromkeys(step.inputs))
        for value in step.outputs:
            if step.name in ("slice", "split") and inputs[0].stored and value not in results:
                value.stored, value.leaves, value.part_of = True, frozenset([value]), inputs[0].whole
                continue
            leaves = frozenset[_Value]().union(*(x.leaves for x in inputs))
            again = sum(leaf.nbytes for leaf in leaves)
            n = len(value.readers)
            value.stored = (
                not step.fuses
                or value in results
                or any(reader.name in _PRODUCTS | _LOOPS | _ALONE for reader in value.readers)
                or (n > 1 and n * again > again + (n + 1) * value.nbytes)
            )
            value.leaves = frozenset([value]) if value.stored else leaves
            value.way = frozenset() if value.stored else frozenset([step]).union(*(x.way for x in inputs))


class _Group(NamedTuple):
    """A kernel that takes up further results of the same shape."""

    place: int
    reads: set[_Value]
    writes: set[_Value]
    steps: set[_Step]


def _fused(steps: Sequence[_Step], results: set[_Value]) -> tuple[tuple[Kernel, ...], int]:
    """Returns the kernels, and the most bytes that stored values take at any time."""
    kernels: list[Kernel] = []
    groups: list[_Group] = []
    recent: dict[tuple[int, ...], list[int]] = defaultdict(list)  # places in `groups`, by shape
    made: dict[_Value, int] = {}  # the place of the group that wrote a value
    peak_in_loop: dict[int, int] = {}
    for step in steps:
        if step.name in _LOOPS:
            loop = _loop(step.equation)
            kernels += loop.kernels
            peak_in_loop[step.place] = loop.temporary
            made |= dict.fromkeys(step.outputs, len(groups))
            continue
        written = [value for value in step.outputs if value.stored and not value.part_of]
        if not written:
            continue
        reads = set[_Value]().union(*(x.leaves for x in step.inputs))
        shape = step.results[0].shape
        joined = _joined(groups, recent[shape], made, reads) if step.fuses else None
        if joined is None:
            joined = len(groups)
            groups.append(_Group(len(kernels), set(), set(), set()))
            recent[shape].append(joined)
            kernels.append(Kernel(step.name, 1, *_product(step), 0.0, 0))
        group = groups[joined]
        group.reads.update(reads - group.writes)
        group.writes.update(written)
        group.steps.update([step], *(x.way for x in step.inputs))
        made |= dict.fromkeys(written, joined)
        kernels[group.place] = kernels[group.place]._replace(
            operations=math.fsum(map(_operations, group.steps)),
            bytes=_moved(step) or sum(value.nbytes for value in group.reads | group.writes),
        )
    return tuple(kernels), _peak(steps, results, peak_in_loop)


def _operations(step: _Step) -> float:
    """Returns the arithmetic of a step, without that of matrix products."""
    if step.name in _PRODUCTS:
        return 0.0
    elements = max(math.prod(aval.shape) for aval in (*step.operands, *step.results))
    return float(_OPERATIONS.get(step.name, 1) * elements)


def _moved(step: _Step) -> int:
    """Returns the bytes that a step reads and writes which touches a part of an array; 0 for other steps."""
    if step.name in _PARTS:
        return 2 * _nbytes(step.results[0])
    if step.name in _UPDATES:
        return 2 * _nbytes(step.operands[_UPDATES[step.name]])
    return 0


def _joined(
    groups: Sequence[_Group], candidates: Sequence[int], made: dict[_Value, int], reads: set[_Value]
) -> int | None:
    """Returns the newest kernel of this shape that also reads some of these values, and begins after the others."""
    ready = max((made[value.whole] for value in reads if value.whole in made), default=-1)
    for place in reversed(candidates):
        group = groups[place]
        if place < ready:
            return None
        if reads & (group.reads | group.writes):
            return place
    return None


def _product(step: _Step) -> tuple[float, bool]:
    """Returns the operations of a step's matrix product, and whether it is narrow; nothing for other steps."""
    if step.name not in _PRODUCTS:
        return 0.0, False
    left, right = step.operands[:2]
    dimensions = step.equation.params["dimension_numbers"]
    if step.name == "dot_general":
        summed = math.prod(left.shape[axis] for axis in dimensions[0][0])
    else:
        summed = math.prod(right.shape) // max(1, right.shape[dimensions.rhs_spec[0]])
    narrow = max(left.dtype.itemsize, right.dtype.itemsize) <= 2
    return 2.0 * math.prod(step.results[0].shape) * summed, narrow


def _loop(equation: Any) -> Work:
    """Counts a loop as often as it runs, and of alternatives the one that takes most."""
    parameters = equation.params
    if equation.primitive.name == "cond":
        branches = [_count(branch.jaxpr) for branch in parameters["branches"]]
        return max(branches, key=lambda work: (work.products, work.bytes))
    if equation.primitive.name == "scan":
        body, times = _count(parameters["jaxpr"].jaxpr), parameters["length"]
    else:
        body, times = _count(parameters["body_jaxpr"].jaxpr), 1
    turn = Kernel("turn", _TURN, 0.0, False, 0.0, 0)
    kernels = tuple(kernel._replace(times=kernel.times * times) for kernel in (*body.kernels, turn))
    return Work(kernels, body.temporary)


def _peak(steps: Sequence[_Step], results: set[_Value], inside: dict[int, int]) -> int:
    """Returns the most bytes of stored values that are not yet read for the last time; results and arguments apart."""
    last: dict[_Value, int] = {}
    for step in steps:
        if any(value.stored for value in step.outputs):
            leaves = set[_Value]().union(*(value.leaves for value in step.inputs))
            last |= dict.fromkeys((leaf.whole for leaf in leaves), step.place)
    freed: dict[int, int] = defaultdict(int)
    for value, place in last.items():
        if value.by is not None and value not in results:
            freed[place] += value.nbytes
    alive, most = 0, 0
    for step in steps:
        born = (value for value in step.outputs if value.stored and value not in results and not value.part_of)
        alive += sum(value.nbytes for value in born)
        most = max(most, alive + inside.get(step.place, 0))
        alive -= freed[step.place]
    return most
