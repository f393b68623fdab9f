"""A decoder and a prompt -> tokens, one after another, or the log-probability of texts that are given.

The prompt is picture and prefix, which see each other fully. Keys and values of all tokens are kept in memory that is
allocated once, and a step computes the new token alone. Rows do not know of each other: what a row gives does not
depend on the batch it is in, nor on the side on which prompts are padded.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from siglip.errors import InputError
from siglip.model.decoder import GemmaDecoder, KeyValueCache

# rows whose answers are scored at a time, which bounds the memory of the copies of the prompt's cache
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the decoder reads first, and which places of it are no padding."""

    embeds: Float[Tensor, "batch tokens width"]
    valid: Bool[Tensor, "batch tokens"]


class Written(NamedTuple):
    """New tokens of each row up to and with EOS, padded behind, and the sum of their log-probabilities."""

    tokens: Int[Tensor, "batch new"]
    log_probability: Float[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """How the next token is chosen, and when to stop.

    One beam and temperature 0: the likeliest. A temperature: drawn from softmax(logits / temperature), cut to the
    smallest set of tokens that holds the share `top_p`. Several beams: see `beam_search`.
    """

    eos: int
    pad: int
    max_new_tokens: int = 32
    num_beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.num_beams < 1:
            raise InputError(
                f"max_new_tokens and num_beams must be >= 1, got {self.max_new_tokens} and {self.num_beams}"
            )
        if self.temperature < 0.0 or not 0.0 < self.top_p <= 1.0:
            raise InputError(f"temperature must be >= 0 and top_p in (0, 1], got {self.temperature} and {self.top_p}")
        if self.num_beams > 1 and self.temperature:
            raise InputError(
                f"num_beams={self.num_beams} searches for the likeliest text and temperature={self.temperature} draws "
                "one; give one of the two"
            )
        if self.top_p < 1.0 and not self.temperature:
            raise InputError(
                f"top_p={self.top_p} limits what is drawn, but nothing is drawn without a temperature; give one too"
            )


class _Reader:
    """A decoder that has read a prompt: takes tokens, gives the logits of the next one."""

    def __init__(self, decoder: GemmaDecoder, valid: Tensor, cache: KeyValueCache) -> None:
        self.decoder = decoder
        self.cache = cache
        self.valid = valid
        self.lengths = valid.sum(dim=1)
        self._prompt_length = valid.shape[1]
        self._padded = not bool(valid.all())

    def read(self, tokens: Int[Tensor, "batch new"]) -> Float[Tensor, "batch new vocabulary"]:
        """Logits behind each of the new tokens, which see the prompt, those read before, and what comes before them."""
        batch, new = tokens.shape
        before = self.cache.filled - self._prompt_length
        places = torch.arange(before, before + new, device=tokens.device)
        mask = None
        if self._padded or new > 1:
            read = torch.arange(before + new, device=tokens.device)
            causal = (read <= places[:, None]).expand(batch, 1, new, before + new)
            mask = torch.cat([self.valid[:, None, None].expand(batch, 1, new, -1), causal], dim=-1)
        positions = self.lengths[:, None] + places
        hidden, _ = self.decoder(self.decoder.embed(tokens), positions, mask, cache=self.cache)
        return self.decoder.logits(hidden)

    def rows(self, index: Int[Tensor, " rows"]) -> "_Reader":
        """The same for rows of this one; they go on by themselves."""
        return _Reader(self.decoder, self.valid[index], self.cache.rows(index))

    def reorder(self, index: Int[Tensor, " rows"]) -> None:
        """Let row i go on from row `index[i]`, which has the same prompt."""
        self.cache = self.cache.rows(index)


def read_prompt(
    decoder: GemmaDecoder, prompt: Prompt, *, room: int
) -> tuple[_Reader, Float[Tensor, "batch vocabulary"]]:
    """Read a prompt, leave room for so many tokens, and give the logits of the first one.

    Raises InputError if there are more tokens than the decoder's context.
    """
    batch, tokens = prompt.valid.shape
    check_length(decoder, tokens + room)
    cache = KeyValueCache.empty(decoder.config, batch=batch, length=tokens + room, like=prompt.embeds)
    mask = prefix_mask(prompt.valid, prompt.valid)
    order = torch.arange(tokens, device=prompt.embeds.device)
    last = (order * prompt.valid).argmax(dim=1)
    hidden, _ = decoder(prompt.embeds, positions_of(prompt.valid), mask, cache=cache, wanted=last)
    return _Reader(decoder, prompt.valid, cache), decoder.logits(hidden[:, 0])


def generate(decoder: GemmaDecoder, prompt: Prompt, choice: Choice) -> Written:
    """Write on behind the prompt, as many columns as the longest row needs; see Choice."""
    if choice.num_beams > 1:
        return beam_search(decoder, prompt, choice)
    reader, logits = read_prompt(decoder, prompt, room=choice.max_new_tokens)
    generator = torch.Generator().manual_seed(choice.seed)
    done = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    total = torch.zeros(len(logits), device=logits.device)
    tokens: list[Tensor] = []
    for step in range(choice.max_new_tokens):
        token = _next_token(logits, choice, generator).masked_fill(done, choice.pad)
        tokens.append(token)
        chance = logits.log_softmax(dim=-1).gather(1, token[:, None])[:, 0]
        total = total + chance.masked_fill(done, 0.0)
        done = done | (token == choice.eos)
        if step + 1 == choice.max_new_tokens or bool(done.all()):
            break
        logits = reader.read(token[:, None])[:, 0]
    return Written(torch.stack(tokens, dim=1), total)


def beam_search(decoder: GemmaDecoder, prompt: Prompt, choice: Choice) -> Written:
    """The likeliest text that a search with `num_beams` beams finds: sum of log-probabilities, no length penalty.

    At every step each live beam with EOS added is a finished text, and the best one ever is kept; the best
    continuations live on, until none is better than the finished one, or at `max_new_tokens`. So what comes back is
    always finished, and often short. Source: big_vision/models/proj/paligemma and its decoding; transformers' search
    may return unfinished texts and penalises length.
    """
    beams, eos = choice.num_beams, choice.eos
    reader, logits = read_prompt(decoder, prompt, room=choice.max_new_tokens)
    batch, vocabulary = logits.shape
    device = logits.device
    reader = reader.rows(torch.arange(batch, device=device).repeat_interleave(beams))
    # all beams of a row are equal at first: only one of them counts
    live = torch.full((batch, beams), -torch.inf, device=device)
    live[:, 0] = 0.0
    logits = logits.repeat_interleave(beams, dim=0)
    texts = torch.full((batch, beams, choice.max_new_tokens), choice.pad, device=device)
    best = torch.full((batch,), -torch.inf, device=device)
    finished = torch.full((batch, choice.max_new_tokens), choice.pad, device=device)
    first_beams = torch.arange(batch, device=device)[:, None] * beams
    for step in range(choice.max_new_tokens):
        scores = live[..., None] + logits.log_softmax(dim=-1).view(batch, beams, vocabulary)
        ending, which = scores[..., eos].max(dim=1)
        better = ending > best
        best = torch.where(better, ending, best)
        ended = texts[torch.arange(batch, device=device), which].clone()
        ended[:, step] = eos
        finished = torch.where(better[:, None], ended, finished)
        scores[..., eos] = -torch.inf
        live, places = scores.flatten(1).topk(beams, dim=1)
        # a row that is done changes no more, since no live beam can become better than it is
        if step + 1 == choice.max_new_tokens or bool((live[:, 0] < best).all()):
            break
        parents, token = places // vocabulary, places % vocabulary
        texts = texts.gather(1, parents[..., None].expand_as(texts))
        texts[..., step] = token
        reader.reorder((first_beams + parents).flatten())
        logits = reader.read(token.view(-1, 1))[:, 0]
    longest = int((finished != choice.pad).sum(dim=1).max())
    return Written(finished[:, : max(1, longest)], best)


def score(
    decoder: GemmaDecoder, prompt: Prompt, answers: list[list[int]], *, eos: int
) -> Float[Tensor, "batch answers"]:
    """Log-probability of each answer's tokens and the EOS behind them, for each row; float32.

    Raises InputError for no answers.
    """
    if not answers:
        raise InputError("no answers to score are given; give at least one")
    longest = max(map(len, answers)) + 1
    reader, first = read_prompt(decoder, prompt, room=longest)
    batch, device = len(first), first.device
    targets = torch.zeros(len(answers), longest, dtype=torch.int64, device=device)
    counts = torch.zeros(len(answers), longest, device=device)
    for row, answer in enumerate(answers):
        targets[row, : len(answer) + 1] = torch.tensor([*answer, eos], device=device)
        counts[row, : len(answer) + 1] = 1.0
    scores: list[Tensor] = []
    step = max(1, _ROWS_AT_ONCE // batch)
    for start in range(0, len(answers), step):
        some = targets[start : start + step]
        index = torch.arange(batch, device=device).repeat_interleave(len(some))
        tokens = some.repeat(batch, 1)
        logits = first[index, None]
        if longest > 1:
            logits = torch.cat([logits, reader.rows(index).read(tokens[:, :-1])], dim=1)
        found = logits.log_softmax(dim=-1).gather(2, tokens[..., None])[..., 0]
        scores.append((found * counts[start : start + step].repeat(batch, 1)).sum(dim=1).view(batch, -1))
    return torch.cat(scores, dim=1)


def positions_of(valid: Bool[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
    """Places counted from 0 over what is no padding."""
    return (valid.long().cumsum(dim=1) - 1).clamp(min=0)


def prefix_mask(
    valid: Bool[Tensor, "batch tokens"], prefix: Bool[Tensor, "batch tokens"]
) -> Bool[Tensor, "batch 1 tokens tokens"] | None:
    """Who sees whom: all see the prefix, and what comes before them; nobody sees padding. None if all see all.

    Padding sees itself, so that its numbers stay finite; nothing reads them.
    """
    if bool((valid & prefix).all()):
        return None
    order = torch.arange(valid.shape[1], device=valid.device)
    seen = (order[None, :] <= order[:, None]) | prefix[:, None, :]
    itself = order[None, :] == order[:, None]
    return ((seen & valid[:, None, :]) | itself)[:, None]


def check_length(decoder: GemmaDecoder, tokens: int) -> None:
    """Raise InputError if so many tokens are more than the decoder's context."""
    context = decoder.config.max_position_embeddings
    if tokens > context:
        raise InputError(
            f"picture, prompt and text together are {tokens} tokens, and this decoder reads {context}; shorten the "
            "prompt, or ask for fewer new tokens"
        )


def _next_token(logits: Tensor, choice: Choice, generator: torch.Generator) -> Int[Tensor, " batch"]:
    if not choice.temperature:
        return logits.argmax(dim=-1)
    chances, order = (logits / choice.temperature).softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    total = chances.cumsum(dim=-1)
    kept = chances * (total - chances < choice.top_p)
    # one number for all rows: what a row draws depends on the seed, not on its neighbours
    drawn = torch.rand(1, generator=generator).to(logits.device) * kept.sum(dim=-1, keepdim=True)
    place = (kept.cumsum(dim=-1) <= drawn).sum(dim=-1, keepdim=True)
    last = (kept > 0).sum(dim=-1, keepdim=True) - 1
    return order.gather(1, torch.minimum(place, last))[:, 0]
