"""What every task returns: numbers, the same by class, and the worst mistakes to look at."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """A picture the model got wrong: its number in the source, what was right, what was said instead, best first."""

    index: int
    name: str
    expected: str
    found: tuple[str, ...]
    margin: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """`numbers` are shares in [0, 1], and counts. `mistakes` are the worst first: those the model was surest of."""

    task: str
    numbers: dict[str, float]
    per_class: dict[str, float] = field(default_factory=dict[str, float])
    mistakes: tuple[Mistake, ...] = ()
