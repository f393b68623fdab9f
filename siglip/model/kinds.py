"""A model or its class -> what its kind is made of: the one table that the rest of the house asks.

A new kind of model is one more row here, and its class in `siglip.model`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from siglip.config import SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.config_paligemma import PaliGemmaConfig
from siglip.errors import ConfigError
from siglip.model.classifier import SiglipForImageClassification
from siglip.model.paligemma import PaliGemmaForConditionalGeneration
from siglip.model.text import SiglipTextModel
from siglip.model.two_towers import SiglipModel
from siglip.model.vision import SiglipVisionModel

Tower = Literal["text", "vision"]
AnyConfig = SiglipConfig | SiglipTextConfig | SiglipVisionConfig | PaliGemmaConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What one public class is made of.

    `towers` are those it has. With `alone` it is one of these and nothing else: its configuration is the tower's and
    its tensors lack the tower's prefix. `has_classes`: it scores the classes of `id2label` with a head `classifier`.
    `writes_text`: it is a PaliGemma, with a configuration and files of its own. Of a checkpoint of the whole model it
    knows the names that begin with `reads` (default: its prefix) but not with `unread`.
    """

    model: type[nn.Module]
    towers: tuple[Tower, ...]
    alone: bool = False
    has_classes: bool = False
    writes_text: bool = False
    reads: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The public name of the class, as in the "architectures" of a published `config.json`."""
        return self.model.__name__

    @property
    def prefix(self) -> str:
        """What comes before the names of its tensors in a checkpoint of the whole model."""
        return f"{self.towers[0]}_model." if self.alone else ""

    def knows(self, name: str) -> bool:
        """Whether a name in a checkpoint of the whole model must be one of its tensors."""
        return name.startswith(self.reads or self.prefix) and not name.startswith(self.unread)

    def own_config(self, whole: SiglipConfig) -> AnyConfig:
        """The configuration that the class is built from, out of that of a checkpoint."""
        return getattr(whole, f"{self.towers[0]}_config") if self.alone else whole

    def whole_config(self, own: Any) -> Any:
        """The configuration of a checkpoint that holds this model; towers it does not have are the default's."""
        return SiglipConfig(**{f"{self.towers[0]}_config": own}) if self.alone else own

    def own_values(self, whole: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a `config.json` for the whole model that is the `config.json` of this class."""
        return dict(whole[f"{self.towers[0]}_config"] if self.alone else whole)


KINDS = (
    Kind(model=SiglipModel, towers=("text", "vision")),
    Kind(model=SiglipTextModel, towers=("text",), alone=True),
    Kind(model=SiglipVisionModel, towers=("vision",), alone=True),
    Kind(
        model=SiglipForImageClassification,
        towers=("vision",),
        has_classes=True,
        reads=("vision_model.",),
        # it takes the mean of the patch tokens
        unread=("vision_model.head.",),
    ),
    Kind(model=PaliGemmaForConditionalGeneration, towers=("vision",), writes_text=True),
)


def kind_of(model: object) -> Kind:
    """The row of a model or of its class, subclasses included; raises ConfigError for anything else."""
    found = model if isinstance(model, type) else type(model)
    for kind in KINDS:
        if issubclass(found, kind.model):
            return kind
    names = ", ".join(kind.name for kind in KINDS)
    raise ConfigError(f"{found.__name__} is not a model class of this package; expected {names} or a subclass of one")
