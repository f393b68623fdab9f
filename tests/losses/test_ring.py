"""Every case runs in real processes over gloo, in float64, and is compared with the whole batch in one process."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from siglip.distributed import Group, init_from_environment, rank, shutdown
from siglip.errors import ShapeError
from siglip.losses import chunked_sigmoid_loss, ring_sigmoid_loss, sigmoid_loss, softmax_loss
from tests.losses.batches import LEARNABLE, Batch, assert_equal, random_batch, random_ids, value_and_gradients
from tests.losses.test_chunked import saved_bytes
from tests.processes import run_processes

WIDTH = 5


class Case(NamedTuple):
    """Rows of each process, and which ids and which frozen sides."""

    sizes: tuple[int, ...]
    ids: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    rows: int | None = None

    def batch(self) -> Batch:
        """The whole batch; the same in every process."""
        seed = sum(size * 7**index for index, size in enumerate(self.sizes))
        ids = random_ids(sum(self.sizes), seed)
        return random_batch(sum(self.sizes), WIDTH, seed) | {name: ids[name] for name in self.ids}

    def share(self, whole: Batch, process: int) -> Batch:
        """What one process holds of it: its rows, and all of what is no row."""
        start = sum(self.sizes[:process])
        rows = slice(start, start + self.sizes[process])
        return {name: value if name.startswith("logit") else value[rows] for name, value in whole.items()}


BOTH = ("image_ids", "text_ids")
CASES = [
    Case((4,)),
    Case((3, 3)),
    Case((5, 2), BOTH, rows=2),
    Case((1, 6), ("text_ids",)),
    Case((4, 4, 4)),
    Case((2, 7, 1), BOTH, rows=3),
    Case((3, 0, 2), ("image_ids",)),
    Case((2, 5, 3), BOTH, frozen=("image_embeds",)),
    Case((2, 5, 3), frozen=("text_embeds",)),
    Case((2, 5, 3), frozen=("image_embeds", "text_embeds")),
    Case((6, 6, 6, 6), rows=4),
    Case((1, 8, 3, 5), BOTH, rows=2),
    Case((9, 1, 1, 4), ("text_ids",)),
]
# the baseline knows no ids and no empty share
BASELINE = [number for number, case in enumerate(CASES) if not case.ids and min(case.sizes)]
RUNS = [*(("ring", number) for number in range(len(CASES))), *(("softmax", number) for number in BASELINE)]
WHOLE = {"ring": sigmoid_loss, "softmax": softmax_loss}


class Towers(nn.Module):
    """The smallest thing DistributedDataParallel can train."""

    def __init__(self, start: Batch) -> None:
        super().__init__()
        self.image = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        self.text = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        for layer in (self.image, self.text):
            nn.init.eye_(layer.weight)
            nn.init.ones_(layer.bias)
        self.logit_scale = nn.Parameter(start["logit_scale"].clone())
        self.logit_bias = nn.Parameter(start["logit_bias"].clone())

    def forward(self, images: Tensor, texts: Tensor) -> dict[str, Tensor]:
        return {
            "image_embeds": nn.functional.normalize(self.image(images), dim=-1),
            "text_embeds": nn.functional.normalize(self.text(texts), dim=-1),
            "logit_scale": self.logit_scale + 0.0,
            "logit_bias": self.logit_bias + 0.0,
        }


def parameter_gradients(model: nn.Module, batch: Batch, loss: Callable[..., Tensor]) -> dict[str, Tensor]:
    outputs = model(batch["image_embeds"], batch["text_embeds"])
    loss(**outputs, **{name: batch[name] for name in BOTH}).backward()
    return {
        name.removeprefix("module."): value.grad for name, value in model.named_parameters() if value.grad is not None
    }


def disagreement(group: Group) -> str:
    """What the processes say when only the first gives ids."""
    try:
        ring_sigmoid_loss(
            **random_batch(2, WIDTH, 0), image_ids=torch.arange(2) if rank(group) == 0 else None, group=group
        )
    except ShapeError as error:
        return str(error)
    return "no error"


def work() -> dict[str, Any]:
    init_from_environment()
    groups = {count: dist.new_group(range(count)) for count in range(1, 5)}
    here, found = rank(), {}
    for number, case in enumerate(CASES):
        group = groups[len(case.sizes)]
        if here >= len(case.sizes):
            continue
        share = case.share(case.batch(), here)
        options = {"frozen": case.frozen, "group": group}
        found["ring", number] = value_and_gradients(ring_sigmoid_loss, share, rows=case.rows, **options)
        if number in BASELINE:
            del share["logit_bias"]
            found["softmax", number] = value_and_gradients(softmax_loss, share, **options)
    case = CASES[-2]
    share, model = case.share(case.batch(), here), Towers(case.batch())
    found["ddp"] = parameter_gradients(DistributedDataParallel(model), share, ring_sigmoid_loss)
    equal = random_batch(32, WIDTH, 0)
    for count, group in groups.items():
        if here < count:
            found["kept", count] = saved_bytes(equal, lambda **batch: ring_sigmoid_loss(**batch, group=group))  # noqa: B023
    found["disagreement"] = disagreement(groups[4])
    with torch.no_grad():
        found["evaluated"] = ring_sigmoid_loss(**share, rows=case.rows)
    shutdown()
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    return run_processes(work, 4, tmp_path_factory.mktemp("ring"))


@pytest.mark.parametrize(("kind", "number"), RUNS, ids=[f"{kind}-{CASES[number].sizes}" for kind, number in RUNS])
def test_the_mean_over_processes_is_the_loss_and_gradient_of_one_process(
    found: list[dict[Any, Any]], kind: str, number: int
) -> None:
    case = CASES[number]
    whole = case.batch()
    if kind == "softmax":
        del whole["logit_bias"]
    shares = [one[kind, number] for one in found[: len(case.sizes)]]
    mean = {
        # rows belong to one process each, so the others' gradient of them is zero
        name: torch.cat([share[name] for share in shares]) / len(shares)
        if name.endswith("embeds")
        else torch.stack([share[name] for share in shares]).mean(dim=0)
        for name in shares[0]
    }
    assert_equal(mean, value_and_gradients(WHOLE[kind], whole, frozen=case.frozen), 1e-12)


def test_parameters_trained_with_ddp_get_the_gradient_of_one_process(found: list[dict[Any, Any]]) -> None:
    whole = CASES[-2].batch()
    expected = parameter_gradients(Towers(whole), whole, sigmoid_loss)
    for one in found:
        assert_equal(one["ddp"], expected, 1e-12)


def test_a_process_keeps_no_more_when_the_world_grows(found: list[dict[Any, Any]]) -> None:
    alone = saved_bytes(random_batch(32, WIDTH, 0), chunked_sigmoid_loss)
    assert [found[0]["kept", count] for count in range(1, 5)] == [alone] * 4


def test_processes_that_do_not_fit_together_all_say_so_instead_of_waiting(found: list[dict[Any, Any]]) -> None:
    for one in found:
        assert "must agree on" in one["disagreement"]


def test_without_gradients_the_value_is_the_same(found: list[dict[Any, Any]]) -> None:
    for one in found:
        assert one["evaluated"] == one["ring", len(CASES) - 2]["loss"]


def test_one_process_without_a_group_is_the_chunked_loss() -> None:
    batch = random_batch(6, WIDTH, 3) | random_ids(6, 3)
    expected = value_and_gradients(chunked_sigmoid_loss, batch, rows=4)
    assert_equal(value_and_gradients(ring_sigmoid_loss, batch, rows=4), expected, 0.0)


def test_an_empty_batch_is_an_error() -> None:
    empty = {name: value[:0] if name in LEARNABLE[:2] else value for name, value in random_batch(2, WIDTH, 0).items()}
    with pytest.raises(ShapeError, match="empty on all processes"):
        ring_sigmoid_loss(**empty)
