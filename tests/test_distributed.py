import faulthandler
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from siglip.distributed import Shift, all_gather, all_gather_ints, init_from_environment, rank, shutdown, world_size
from siglip.errors import ConfigError
from tests.processes import run_processes


def work() -> dict[str, Any]:
    """In three processes: what each function gives in the whole group and in one of processes 2 and 0."""
    device = init_from_environment()
    here = rank()
    found: dict[str, Any] = {"device": device, "rank": here, "world_size": world_size()}

    sent = [torch.full((2, 3), float(here)), torch.tensor([here * 10]), torch.empty(0, 4)]
    received = [torch.empty_like(tensor) for tensor in sent]
    Shift(sent, received).wait()
    found["shift"] = received

    found["ints"] = all_gather_ints([here, 7], device)
    rows = (torch.arange(2.0 * here).reshape(here, 2) + 100 * here).requires_grad_()  # 0, 1 and 2 rows
    gathered = all_gather(rows)
    weights = torch.arange(1.0, 4.0)[:, None] * (here + 1)
    (gathered * weights).sum().backward()
    found["gathered"], found["gradient"] = gathered.detach(), rows.grad

    pair = dist.new_group([0, 2])
    if here != 1:
        arrived = torch.zeros(1)
        Shift([torch.tensor([here * 10.0])], [arrived], pair).wait()
        found["pair"] = (rank(pair), world_size(pair), arrived.item())
    shutdown()
    found["after"] = (rank(), world_size())
    shutdown()
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_processes(work, 3, tmp_path_factory.mktemp("processes"))


def test_processes_of_torchrun_know_their_rank_and_leave_in_the_end(found: list[dict[str, Any]]) -> None:
    assert [(one["rank"], one["world_size"], one["after"]) for one in found] == [(here, 3, (0, 1)) for here in range(3)]


def test_a_shift_brings_what_the_left_neighbour_sent(found: list[dict[str, Any]]) -> None:
    for here, one in enumerate(found):
        numbers, tens, _ = one["shift"]
        left = (here - 1) % 3
        assert torch.equal(numbers, torch.full((2, 3), float(left)))
        assert tens.tolist() == [left * 10]


def test_rows_of_unequal_shares_are_gathered_in_the_order_of_ranks(found: list[dict[str, Any]]) -> None:
    for one in found:
        assert one["ints"] == [[0, 7], [1, 7], [2, 7]]
        assert one["gathered"].tolist() == [[100.0, 101.0], [200.0, 201.0], [202.0, 203.0]]


def test_the_gradient_of_a_gathered_row_is_summed_over_all_processes(found: list[dict[str, Any]]) -> None:
    # process r weighs row i with (i + 1) * (r + 1), and 1 + 2 + 3 = 6
    gradients = [one["gradient"].tolist() for one in found]
    assert gradients == [[], [[6.0, 6.0]], [[12.0, 12.0], [18.0, 18.0]]]


def test_a_part_of_the_processes_may_form_a_ring_of_its_own(found: list[dict[str, Any]]) -> None:
    assert found[0]["pair"] == (0, 2, 20)
    assert found[2]["pair"] == (1, 2, 0)


def models_that_live_longer() -> int:
    """Groups that are left before their models are freed, just after a tensor of ours was on its way."""
    faulthandler.dump_traceback_later(60, exit=True)
    for _ in range(100):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        model = DistributedDataParallel(torch.nn.Linear(1, 1))
        for _ in range(3):
            dist.all_gather([torch.empty(65536)], torch.ones(65536))
        shutdown()
        del model
    return 100


def test_a_model_may_be_freed_after_the_group_was_left(tmp_path: Path) -> None:
    assert run_processes(models_that_live_longer, 1, tmp_path) == [100]


def test_one_process_is_alone_and_gets_its_own_tensors_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    init_from_environment()
    tensor = torch.arange(6).reshape(3, 2)
    assert (rank(), world_size()) == (0, 1)
    received = torch.zeros_like(tensor)
    Shift([tensor], [received]).wait()
    assert torch.equal(received, tensor)
    assert all_gather(tensor) is tensor
    assert all_gather_ints([4, 5], tensor.device) == [[4, 5]]
    shutdown()


def test_half_an_environment_is_an_error_that_names_the_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(ConfigError, match="WORLD_SIZE is set but not RANK, LOCAL_RANK, MASTER_PORT"):
        init_from_environment()
