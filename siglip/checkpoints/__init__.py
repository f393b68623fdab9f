"""Files <-> models and processors; the only code that knows the tensor names of other projects."""

from siglip.checkpoints.fingerprint import files_key, fingerprint, remembered_fingerprint
from siglip.checkpoints.hub import resolve
from siglip.checkpoints.load import classifies, load_config, load_model, load_processing, writes
from siglip.checkpoints.save import convert, save_model, save_processing
from siglip.config import SiglipConfig as AutoConfig
from siglip.model import SiglipForImageClassification as AutoModelForImageClassification
from siglip.model import SiglipModel as AutoModel
from siglip.model import SiglipModel as AutoModelForZeroShotImageClassification
from siglip.processing import SiglipImageProcessor as AutoImageProcessor
from siglip.processing import SiglipProcessor as AutoProcessor
from siglip.processing import SiglipTokenizer as AutoTokenizer

__all__ = [
    "AutoConfig",
    "AutoImageProcessor",
    "AutoModel",
    "AutoModelForImageClassification",
    "AutoModelForZeroShotImageClassification",
    "AutoProcessor",
    "AutoTokenizer",
    "classifies",
    "convert",
    "files_key",
    "fingerprint",
    "load_config",
    "load_model",
    "load_processing",
    "remembered_fingerprint",
    "resolve",
    "save_model",
    "save_processing",
    "writes",
]
