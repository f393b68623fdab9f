"""Pictures and a prefix -> text: an image tower, a linear projector and a Gemma decoder (PaliGemma 1 and 2).

Sources: arXiv 2407.07726 and 2412.03555, and the authors' code, big_vision/models/proj/paligemma.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from siglip.config_paligemma import PaliGemmaConfig
from siglip.errors import InputError, ShapeError
from siglip.model.decoder import GemmaDecoder
from siglip.model.generate import Choice, Prompt, check_length, generate, positions_of, prefix_mask, score
from siglip.model.layers import global_state_kept, lecun_normal_
from siglip.model.vision import SiglipVisionModel
from siglip.pretrained import PretrainedModel
from siglip.types import PaliGemmaOutput

IGNORED = -100


class Projector(nn.Module):
    """One linear layer from the width of the tower to that of the decoder."""

    def __init__(self, vision_width: int, text_width: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(vision_width, text_width)
        lecun_normal_(self.linear.weight, vision_width, generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch text_width"]:
        return self.linear(x)


class PaliGemmaForConditionalGeneration(PretrainedModel, nn.Module):
    """Writes what it sees: the prompt is picture and prefix, which see each other fully, the text after it is causal.

    `input_ids` are those of PaliGemmaProcessor: image tokens, BOS, prefix, separator, then in training the suffix and
    EOS, padded on either side. What belongs to the suffix is told by `token_type_ids` (1 there), else by `labels`;
    without both, everything is prompt. Unequal rows of a batch do not change one another.
    """

    def __init__(self, config: PaliGemmaConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        widths = config.vision_config.hidden_size, config.text_config.hidden_size
        with global_state_kept(generator):
            self.vision_tower = SiglipVisionModel(config.vision_config, generator=generator)
            self.multi_modal_projector = Projector(*widths, generator)
            self.language_model = GemmaDecoder(config.text_config, generator=generator)

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        pixel_values: Float[Tensor, "pictures channels height width_px"] | None = None,
        attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"] | None = None,
        token_type_ids: Int[Tensor, "batch tokens"] | None = None,
        labels: Int[Tensor, "batch tokens"] | None = None,
        *,
        patch_tokens: Float[Tensor, "pictures patches width"] | None = None,
        output_hidden_states: bool = False,
    ) -> PaliGemmaOutput:
        """Logits of the token after each one, and the loss if `labels` are given (see `loss`).

        Pictures stand in the order in which their image tokens are read; instead of `pixel_values`, `patch_tokens`
        takes what `vision_tower(...).last_hidden_state` gave before. Raises ShapeError if the image tokens are not as
        many as the patches, InputError for more tokens than the decoder's context.
        """
        features = self._features(pixel_values, patch_tokens)
        hidden, states = self._read(
            input_ids, features, attention_mask, _suffix(token_type_ids, labels), output_hidden_states
        )
        loss = None if labels is None else self._loss(hidden, labels, 0.0)
        return PaliGemmaOutput(loss, self.language_model.logits(hidden), states, features)

    def loss(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        labels: Int[Tensor, "batch tokens"],
        pixel_values: Float[Tensor, "pictures channels height width_px"] | None = None,
        attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"] | None = None,
        *,
        patch_tokens: Float[Tensor, "pictures patches width"] | None = None,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the suffix: mean over the tokens of a row, then over rows, as in the original code.

        `labels` are the ids of suffix and EOS where they stand in `input_ids`, -100 elsewhere. Logits are computed at
        these places only. transformers takes the mean over all tokens of the batch, which is the same for one row.
        With `label_smoothing` s the target has 1 - s and every other token s / (vocabulary - 1).
        """
        features = self._features(pixel_values, patch_tokens)
        hidden, _ = self._read(input_ids, features, attention_mask, _suffix(None, labels), False)
        return self._loss(hidden, labels, label_smoothing)

    def get_image_features(
        self, pixel_values: Float[Tensor, "pictures channels height width_px"]
    ) -> Float[Tensor, "pictures patches width"]:
        """Pictures as the decoder reads them: patch tokens after the projector."""
        return self.multi_modal_projector(self.vision_tower(pixel_values).last_hidden_state)

    def prompt(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        pixel_values: Float[Tensor, "pictures channels height width_px"] | None = None,
        attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"] | None = None,
    ) -> Prompt:
        """What the decoder reads before it writes; raises as `forward`."""
        return Prompt(self._embed(input_ids, self._features(pixel_values, None)), _valid(input_ids, attention_mask))

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        pixel_values: Float[Tensor, "pictures channels height width_px"] | None = None,
        attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"] | None = None,
        *,
        max_new_tokens: int = 32,
        num_beams: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Int[Tensor, "batch all"]:
        """`input_ids` with the new tokens behind them, up to and with EOS; rows that end early are padded behind.

        See Choice for how tokens are chosen. What a row gives depends on it and the seed alone. Keys and values are
        kept in memory allocated once, see KeyValueCache. Raises as `forward`, and InputError for a strange choice.
        """
        choice = Choice(
            eos=self.config.eos_token_id,
            pad=self.config.pad_token_id,
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )
        prompt = self.prompt(input_ids, pixel_values, attention_mask)
        return torch.cat([input_ids, generate(self.language_model, prompt, choice).tokens], dim=1)

    @torch.no_grad()
    def score(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        answers: list[list[int]],
        pixel_values: Float[Tensor, "pictures channels height width_px"] | None = None,
        attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch answers"]:
        """Log-probability of each answer (token ids without EOS, which is counted too) after each prompt.

        The best of them is the answer that never leaves the list. Raises as `forward`, InputError for no answers.
        """
        prompt = self.prompt(input_ids, pixel_values, attention_mask)
        return score(self.language_model, prompt, answers, eos=self.config.eos_token_id)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.multi_modal_projector.linear.weight.device

    def _features(self, pixel_values: Tensor | None, patch_tokens: Tensor | None) -> Tensor | None:
        if pixel_values is not None and patch_tokens is not None:
            raise InputError("got both pixel_values and patch_tokens; give the pictures in one of the two forms")
        if patch_tokens is not None:
            return self.multi_modal_projector(patch_tokens.to(self.multi_modal_projector.linear.weight.dtype))
        return None if pixel_values is None else self.get_image_features(pixel_values)

    def _read(
        self,
        input_ids: Tensor,
        features: Tensor | None,
        attention_mask: Tensor | None,
        suffix: Tensor | None,
        output_hidden_states: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        check_length(self.language_model, input_ids.shape[1])
        valid = _valid(input_ids, attention_mask)
        mask = prefix_mask(valid, valid if suffix is None else valid & ~suffix)
        embeds = self._embed(input_ids, features)
        return self.language_model(embeds, positions_of(valid), mask, output_hidden_states=output_hidden_states)

    def _embed(self, input_ids: Tensor, features: Tensor | None) -> Tensor:
        """Rows of the table, and the pictures in the places of the image tokens; these are not scaled."""
        places = input_ids == self.config.image_token_index
        expected = 0 if features is None else features.shape[0] * features.shape[1]
        if int(places.sum()) != expected:
            raise ShapeError(
                f"input_ids hold {int(places.sum())} image tokens (id {self.config.image_token_index}), and the "
                f"pictures have {expected} patches; prepare both with the checkpoint's PaliGemmaProcessor"
            )
        embeds = self.language_model.embed(input_ids.masked_fill(places, self.config.pad_token_id))
        if features is None:
            return embeds
        return embeds.masked_scatter(places[..., None].expand_as(embeds), features.to(embeds.dtype))

    def _loss(self, hidden: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        # the state at one place is what the next token is predicted from
        rows, places = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
        if not len(rows):
            raise InputError("labels hold no token to learn from: every place is -100; give each prompt a suffix")
        logits = self.language_model.logits(hidden[rows, places])
        return suffix_loss(logits, labels[rows, places + 1], rows, len(labels), label_smoothing)


def suffix_loss(
    logits: Float[Tensor, "targets vocabulary"],
    targets: Int[Tensor, " targets"],
    rows: Int[Tensor, " targets"],
    num_rows: int,
    label_smoothing: float,
) -> Float[Tensor, ""]:
    """Mean over the targets of each row, then over `num_rows` rows; a row without targets counts as 0."""
    log_chances = logits.log_softmax(dim=-1)
    rest = label_smoothing / (logits.shape[-1] - 1)
    costs = -(1.0 - label_smoothing - rest) * log_chances.gather(1, targets[:, None])[:, 0]
    if label_smoothing:
        costs = costs - rest * log_chances.sum(dim=-1)
    counts = torch.bincount(rows, minlength=num_rows)
    return (costs / counts[rows]).sum() / num_rows


def _suffix(token_type_ids: Tensor | None, labels: Tensor | None) -> Tensor | None:
    if token_type_ids is not None:
        return token_type_ids != 0
    # the suffix begins at its first label and goes on to the end, padding behind it included
    return None if labels is None else (labels != IGNORED).cumsum(dim=1) > 0


def _valid(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    if attention_mask.shape != input_ids.shape:
        raise ShapeError(
            f"attention_mask is {list(attention_mask.shape)} and input_ids are {list(input_ids.shape)}; "
            "they must be of one shape"
        )
    return attention_mask != 0
