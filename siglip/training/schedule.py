"""step -> learning-rate factor in [0, 1]. Pure functions: a resumed run needs no state of its own here."""

import math
from typing import Literal

from siglip.errors import ConfigError

Decay = Literal["cosine", "linear", "constant"]


def learning_rate_factor(step: int, *, steps: int, warmup_steps: int, decay: Decay = "cosine") -> float:
    """Linear from 0 to 1 over `warmup_steps`, then `decay` to 0 at `steps` (constant: stays 1).

    `step` counts finished updates: the first update uses factor 1 / warmup_steps, so that it is not wasted. Raises
    ConfigError unless 0 <= warmup_steps < steps.
    """
    if not 0 <= warmup_steps < steps:
        raise ConfigError(f"the warm-up must be shorter than the run, got {warmup_steps} of {steps} steps")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / (steps - warmup_steps))
    if decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress if decay == "linear" else 1.0
