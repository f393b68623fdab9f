"""Each benchmark runs and says what it measured; how long things take is nobody's test."""

import importlib
import json
import time

import pytest

from benchmarks.harness import Timing, compare, race


@pytest.mark.parametrize(
    "name",
    [
        "towers",
        "zero_shot",
        "folder",
        "cold_start",
        "train_step",
        "locked",
        "generation",
        "shapes",
        "easy_vqa",
        "scenes",
        "absence",
        "search",
    ],
)
@pytest.mark.filterwarnings("ignore")  # the peer's
def test_each_benchmark_prints_json_with_machine_versions_and_ratios(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module(f"benchmarks.{name}").main(["--quick"])
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["quick"] is True
    assert {"processor", "cores", "threads", "bfloat16", "versions"} <= result["machine"].keys()
    assert {"python", "torch", "transformers", "siglip"} <= result["machine"]["versions"].keys()
    # what is compared does the same work
    assert all(value > 0.999 for fact, value in result.items() if "cosine" in fact)
    for row in result["rows"]:
        assert min(row["peer_s"], row["ours_s"], row["ratio"]) > 0
        assert row["what"] in printed.err


def test_contestants_take_turns_and_warm_up_is_not_counted() -> None:
    turns: list[str] = []
    timings = race({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, rounds=3)
    assert "".join(turns) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(times) for name, times in timings.items()} == {"a": 3, "b": 3}


def test_a_turn_counts_waiting_as_wall_and_not_as_processor_seconds() -> None:
    (slept,) = race({"sleep": lambda: time.sleep(0.2)}, rounds=1, warm_up=False)["sleep"]
    assert slept.wall_s >= 0.2 > slept.cpu_s


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    timings = {
        "peer": [Timing(2.0, 3.0), Timing(90.0, 3.0), Timing(4.0, 3.0)],
        "ours": [Timing(1.0, 1.0), Timing(30.0, 1.0), Timing(1.0, 4.0)],
    }
    row = compare("x", timings, peer="peer", ours="ours", goal=3.5)
    assert (row.peer_s, row.ours_s, row.ratio, row.cpu_ratio, row.best_ratio) == (4.0, 1.0, 3.0, 1.5, 2.0)
    assert row.met is False
    assert compare("x", timings, peer="peer", ours="ours").met is None
