"""Embeddings in, one number out: the sigmoid loss in three forms of equal value, and the softmax baseline."""

from siglip.losses.chunked import chunked_sigmoid_loss
from siglip.losses.ring import ring_sigmoid_loss
from siglip.losses.sigmoid import sigmoid_loss
from siglip.losses.softmax import softmax_loss

__all__ = ["chunked_sigmoid_loss", "ring_sigmoid_loss", "sigmoid_loss", "softmax_loss"]
