import json

import pytest
import torch

from siglip import SiglipModel, SiglipProcessor
from siglip.cli.main import main
from tests.conftest import ROOT

FILES = [str(ROOT / "samples" / name) for name in ("penguin.png", "cat.jpg", "teapot.png")]
TEXTS = ["a penguin", "Teapot!"]


def test_scores_are_those_of_the_model_in_the_order_given_in_json_and_in_a_matrix(capsys: pytest.CaptureFixture[str]):
    assert main(["score", *FILES, "--texts", *TEXTS, "--dtype", "float32", "--json"]) == 0
    images = json.loads(capsys.readouterr().out)["images"]
    model, processor = SiglipModel.from_pretrained("nano"), SiglipProcessor.from_pretrained("nano")
    with torch.inference_mode():
        output = model(**processor(text=TEXTS, images=FILES, return_tensors="pt"))
    cosines = output.image_embeds @ output.text_embeds.T
    assert [record["image"] for record in images] == FILES
    for key, expected in (
        ("probability", output.logits_per_image.sigmoid()),
        ("logit", output.logits_per_image),
        ("cosine", cosines),
    ):
        found = [[score[key] for score in record["scores"]] for record in images]
        assert torch.allclose(torch.tensor(found), expected, rtol=1e-3, atol=1e-6), key
    assert all([score["text"] for score in record["scores"]] == TEXTS for record in images)

    assert main(["score", *FILES, "--texts", *TEXTS, "--dtype", "float32"]) == 0
    heading, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert heading == ["image", *TEXTS]
    assert [row[0] for row in rows] == FILES
    matrix = torch.tensor([[float(cell) for cell in row[1:]] for row in rows])
    assert torch.allclose(matrix, output.logits_per_image.sigmoid(), rtol=1e-3)


@pytest.mark.parametrize(("width", "rows"), [("120", 1), ("50", 2)])
def test_a_terminal_too_narrow_for_the_matrix_gets_a_line_for_each_text_best_first(
    width: str, rows: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.chdir(ROOT / "samples")
    assert main(["score", "penguin.png", "--texts", "a telephone in a museum", "a black and white penguin"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == rows
    if rows == 2:
        assert heading.split() == ["image", "text", "probability"]
        assert [line.split()[-1] for line in lines] == sorted(
            (line.split()[-1] for line in lines), key=float, reverse=True
        )
