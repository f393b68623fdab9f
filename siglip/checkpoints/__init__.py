"""Files <-> models and processors; the only code that knows the tensor names of other projects."""

from siglip.checkpoints.fingerprint import fingerprint
from siglip.checkpoints.hub import resolve
from siglip.checkpoints.load import load_config, load_model, load_processing
from siglip.checkpoints.save import convert, save_model, save_processing
from siglip.model import SiglipModel as AutoModel
from siglip.processing import SiglipProcessor as AutoProcessor

__all__ = [
    "AutoModel",
    "AutoProcessor",
    "convert",
    "fingerprint",
    "load_config",
    "load_model",
    "load_processing",
    "resolve",
    "save_model",
    "save_processing",
]
