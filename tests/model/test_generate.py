"""Writing: a cache that changes nothing, beams, draws, and texts equal to those of transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from siglip.model.generate import Choice, _next_token, beam_search, generate, read_prompt
from tests.model.paligemmas import MODELS, PICTURES, PROMPTS, peer_of, prompts, tiny


@pytest.mark.parametrize("second", [False, True])
def test_transformers_generates_the_same_text(second: bool, tmp_path: Path) -> None:
    model = MODELS[second]
    peer = peer_of(model, tmp_path)
    ids, mask = prompts(*PROMPTS)
    peer.generation_config.eos_token_id, peer.generation_config.pad_token_id = 1, 0
    theirs = peer.generate(
        input_ids=ids, pixel_values=PICTURES, attention_mask=mask, token_type_ids=torch.zeros_like(ids),
        max_new_tokens=12, do_sample=False,
    )  # fmt: skip
    ours = model.generate(ids, PICTURES, mask, max_new_tokens=12)
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"temperature": 0.8, "top_p": 0.9, "seed": 4}])
def test_a_text_depends_neither_on_the_batch_nor_on_the_side_of_the_padding(second: bool, options: Any) -> None:
    model = MODELS[second]
    found = []
    for right in (False, True):
        ids, mask = prompts(*PROMPTS, right=right)
        found.append(model.generate(ids, PICTURES, mask, max_new_tokens=9, **options)[:, ids.shape[1] :])
    assert found[0].tolist() == found[1].tolist()
    for row, text in enumerate(PROMPTS):
        ids = torch.tensor([[60] * 4 + text])
        alone = model.generate(ids, PICTURES[row : row + 1], max_new_tokens=9, **options)[0, ids.shape[1] :].tolist()
        assert found[0][row].tolist()[: len(alone)] == alone


@pytest.mark.parametrize("second", [False, True])
def test_the_cache_gives_the_logits_of_the_full_pass(second: bool) -> None:
    model = MODELS[second]
    ids, mask = prompts(*PROMPTS)
    answers = [[11, 12, 13], [14], [15, 16]]
    scores = model.score(ids, answers, PICTURES, mask)
    for row, prompt in enumerate(PROMPTS):
        for column, answer in enumerate(answers):
            text = torch.tensor([[60] * 4 + prompt + answer + [1]])
            labels = text.clone()
            labels[:, : -len(answer) - 1] = -100
            with torch.no_grad():
                full = model(text, PICTURES[row : row + 1], labels=labels)
            assert scores[row, column].item() == pytest.approx(-full.loss.item() * (len(answer) + 1), abs=1e-4)


@pytest.mark.parametrize("second", [False, True])
def test_every_logit_behind_the_cache_is_that_of_the_full_pass(second: bool) -> None:
    """The new tokens one by one, two at a time and all at once, for prompts of unequal length."""
    model = MODELS[second]
    text = torch.tensor([[11, 12, 13, 14], [21, 22, 23, 24], [31, 32, 33, 34]])
    for right in (False, True):
        ids, mask = prompts(*PROMPTS, right=right)
        rows = torch.cat([ids, text], dim=1)
        kinds = torch.cat([torch.zeros_like(ids), torch.ones_like(text)], dim=1)
        with torch.no_grad():
            full = model(rows, PICTURES, torch.cat([mask, torch.ones_like(text)], dim=1), token_type_ids=kinds).logits
            for step in (1, 2, 4):
                reader, logits = read_prompt(model.language_model, model.prompt(ids, PICTURES, mask), room=4)
                read = [reader.read(part) for part in text.split(step, dim=1)]
                last = ids.shape[1] - 1 - (0 if not right else ids.shape[1] - mask.sum(dim=1))
                first = full[torch.arange(3), last]
                assert torch.allclose(logits, first, atol=1e-5, rtol=1e-5)
                assert torch.allclose(torch.cat(read, dim=1), full[:, ids.shape[1] :], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("second", [False, True])
def test_the_search_with_one_beam_finds_the_greedy_text_where_the_model_is_sure(second: bool) -> None:
    """A search keeps the best text that could have ended anywhere, so where it must follow the greedy one is where each
    greedy token has nearly all the probability.
    """
    model = tiny(second)
    # logits a thousand times as large
    norm = model.language_model.norm.weight.data
    norm.add_(1.0).mul_(1000.0).sub_(1.0)
    lengths = set[int]()
    ids, mask = prompts(*PROMPTS)
    with torch.no_grad():
        prompt = model.prompt(ids, PICTURES, mask)
        free = generate(model.language_model, prompt, Choice(eos=-1, pad=0, max_new_tokens=6))
        assert (free.log_probability > -0.1).all()
        # each token that is written takes the place of EOS once, so that texts of every length end
        for eos in set(free.tokens.flatten().tolist()):
            choice = Choice(eos=eos, pad=0, max_new_tokens=6)
            greedy = generate(model.language_model, prompt, choice)
            found = beam_search(model.language_model, prompt, choice)
            for row in range(len(ids)):
                text = greedy.tokens[row].tolist()
                if eos in text:
                    text = text[: text.index(eos) + 1]
                    assert found.tokens[row].tolist()[: len(text)] == text
                    assert found.log_probability[row] == pytest.approx(greedy.log_probability[row].item(), abs=1e-5)
                    lengths.add(len(text))
    # the second one repeats its first word
    assert len(lengths) > (0 if second else 2)


def test_one_beam_is_greedy_and_each_greedy_token_is_the_likeliest_of_a_full_pass() -> None:
    model = MODELS[True]
    ids, mask = prompts(*PROMPTS)
    greedy = model.generate(ids, PICTURES, mask, max_new_tokens=6)
    assert torch.equal(greedy, model.generate(ids, PICTURES, mask, max_new_tokens=6, num_beams=1))
    for row in range(3):
        text = greedy[row][mask.sum(dim=1).max() - mask[row].sum() :]
        for place in range(int(mask[row].sum()), len(text)):
            if text[place - 1] == 1:
                break
            kinds = (torch.arange(place) >= mask[row].sum()).long()[None]
            with torch.no_grad():
                logits = model(text[None, :place], PICTURES[row : row + 1], token_type_ids=kinds).logits
            assert logits[0, -1].argmax() == text[place]


def test_a_seed_repeats_a_draw_and_another_draws_anew() -> None:
    model = MODELS[False]
    ids, mask = prompts(*PROMPTS)
    draws = [model.generate(ids, PICTURES, mask, temperature=3.0, seed=seed, max_new_tokens=8) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert draws[0].tolist() != draws[2].tolist()


def test_draws_have_the_frequencies_of_the_model_up_to_the_share_asked_for() -> None:
    chances = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    generator = torch.Generator().manual_seed(0)
    for top_p, expected in (
        (1.0, [0.5, 0.3, 0.15, 0.05]),
        (0.7, [0.625, 0.375, 0.0, 0.0]),
        (0.1, [1.0, 0.0, 0.0, 0.0]),
    ):
        choice = Choice(eos=1, pad=0, temperature=2.0, top_p=top_p)
        # logits that the temperature halves to the logarithms of these chances
        drawn = torch.cat([_next_token(2.0 * chances.log(), choice, generator) for _ in range(500)])
        found = torch.bincount(drawn, minlength=4) / 500
        assert torch.allclose(found, torch.tensor(expected), atol=0.06)
