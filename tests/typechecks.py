"""Every function of siglip checks its annotations in tests: shapes with jaxtyping where there are arrays, else types.

The option --jaxtyping-packages puts `jaxtyping.jaxtyped` around all of them, which binds the arguments of a call, opens
a scope for the sizes of its axes, and checks twice. Without arrays there are no sizes, and beartype alone does the same
for a small part of the time. Functions within functions are made anew in every call, and so would be their checks;
without arrays they are left alone.
"""

import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any
from weakref import WeakSet

import jaxtyping
from beartype import BeartypeConf, beartype

_jaxtyped = jaxtyping.jaxtyped
_types_alone: Any = beartype(conf=BeartypeConf(violation_type=TypeError))
_without_shapes: WeakSet[FunctionType] = WeakSet()


def _checked(made: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    if made is None:
        return partial(_checked, typechecker=typechecker)
    if isinstance(made, FunctionType) and not any(map(_may_hold_arrays, made.__annotations__.values())):
        checked = made if "<locals>" in made.__qualname__ else _types_alone(made)
        _without_shapes.add(checked)
        return checked
    if inspect.isclass(made) and made.__init__ in _without_shapes:
        # of a dataclass, whose own __init__ would be checked; this one stands before it
        return made
    return _jaxtyped(made, typechecker=typechecker)


def _may_hold_arrays(annotation: object) -> bool:
    """Whether it has an array somewhere, or is quoted, so that it could name one."""
    return isinstance(annotation, str) or "jaxtyping." in repr(annotation) or "ForwardRef" in repr(annotation)


# read by every module of siglip as it is imported
jaxtyping.jaxtyped = _checked
