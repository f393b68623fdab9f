"""The pipelines give the numbers of the peer's, take what people pass them, and fail with words that help."""

import http.server
import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import siglip
from siglip.embedder import Embedder
from siglip.errors import Failure, InputError, UnreadableImage
from siglip.pipelines import ZeroShotImageClassification, pipeline
from siglip.pipelines.calls import each
from tests.conftest import ROOT

CAT, COFFEE, ROCKET = (ROOT / "samples" / name for name in ("cat.jpg", "coffee.jpg", "rocket.jpg"))
LABELS = ["a cat", "two dogs", "coffee", "a rocket on its pad"]


def saved_by_the_peer(folder: Path, context_length: int) -> Path:
    """A tiny random checkpoint as transformers writes it, with scores far from one another."""
    vocabulary = ROOT / "siglip" / "assets" / "nano" / "spiece.model"
    # as the published checkpoints say: without it the peer's pipeline masks the padding
    names = ["input_ids"]
    tokenizer = transformers.SiglipTokenizer(str(vocabulary), model_max_length=context_length, model_input_names=names)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.SiglipConfig(
        text_config={
            **shape, "vocab_size": tokenizer.vocab_size, "max_position_embeddings": context_length,
            "projection_size": 32, "bos_token_id": None, "eos_token_id": 1,
        },
        vision_config={**shape, "image_size": 32, "patch_size": 8},
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-1.5)
    model.save_pretrained(folder)
    images = transformers.SiglipImageProcessor(size={"height": 32, "width": 32}, resample=3)
    transformers.SiglipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_by_the_peer(tmp_path_factory.mktemp("peer64"), 64)


@pytest.fixture(scope="module")
def classifier(folder: Path) -> ZeroShotImageClassification:
    return pipeline("zero-shot-image-classification", folder, device="cpu", dtype="float32", batch_size=4)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("broken") / "broken.jpg"
    path.write_bytes(CAT.read_bytes()[:5000])
    return path


def by_label(scores: list[dict[str, Any]]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in scores}


# ---- the peer's numbers


def test_scores_order_and_shape_equal_the_peers_pipeline(folder: Path, classifier: ZeroShotImageClassification) -> None:
    peer = transformers.pipeline("zero-shot-image-classification", model=str(folder), dtype=torch.float32)
    images = [str(CAT), str(COFFEE), str(ROCKET)]
    for template in ("This is a photo of {}.", "{}"):
        expected = peer(images, candidate_labels=LABELS, hypothesis_template=template)
        found = classifier(images, candidate_labels=LABELS, hypothesis_template=template)
        for mine, theirs in zip(found, expected, strict=True):
            assert [entry["label"] for entry in mine] == [entry["label"] for entry in theirs]
            np.testing.assert_allclose([e["score"] for e in mine], [e["score"] for e in theirs], atol=1e-4)
            assert max(by_label(mine).values()) - min(by_label(mine).values()) > 1e-3
    assert classifier(str(CAT), LABELS) == classifier([str(CAT)], LABELS)[0]


def test_sixteen_tokens_work_where_the_peers_pipeline_fails(tmp_path: Path) -> None:
    folder = saved_by_the_peer(tmp_path, 16)
    peer = transformers.pipeline("zero-shot-image-classification", model=str(folder))
    with pytest.raises(ValueError, match="max_position_embeddings"):
        peer(str(CAT), candidate_labels=LABELS)
    texts = [f"This is a photo of {label}." for label in LABELS]
    with torch.no_grad():
        output = peer.model(
            **peer.tokenizer(texts, padding="max_length", max_length=16, truncation=True, return_tensors="pt"),
            **peer.image_processor(Image.open(CAT), return_tensors="pt"),
        )
    expected = dict(zip(LABELS, output.logits_per_image.sigmoid()[0].tolist(), strict=True))
    found = pipeline("zero-shot-image-classification", folder, device="cpu", dtype="float32")(CAT, LABELS)
    assert by_label(found) == pytest.approx(expected, abs=1e-4)


def test_the_documented_pipeline_example_runs_with_the_import_changed(
    folder: Path, classifier: ZeroShotImageClassification
) -> None:
    on = 0 if torch.cuda.is_available() else "cpu"
    pipe = siglip.pipeline(task="zero-shot-image-classification", model=str(folder), device=on, dtype=torch.bfloat16)
    found = pipe(str(CAT), candidate_labels=["a Pallas cat", "a lion", "a Siberian tiger"])
    expected = classifier(str(CAT), ["a Pallas cat", "a lion", "a Siberian tiger"])
    assert by_label(found) == pytest.approx(by_label(expected), abs=0.02)


def test_the_documented_model_example_runs_with_the_import_changed(
    folder: Path, classifier: ZeroShotImageClassification
) -> None:
    model = siglip.AutoModel.from_pretrained(str(folder), device_map="auto", attn_implementation="sdpa")
    processor = siglip.AutoProcessor.from_pretrained(str(folder))
    image = Image.open(CAT)
    texts = [f"This is a photo of {label}." for label in LABELS]
    inputs = processor(text=texts, images=image, padding="max_length", return_tensors="pt").to(model.device)
    with torch.no_grad():
        outputs = model(**inputs)
    probs = torch.sigmoid(outputs.logits_per_image)
    assert dict(zip(LABELS, probs[0].tolist(), strict=True)) == pytest.approx(
        by_label(classifier(CAT, LABELS)), abs=1e-4
    )


# ---- what may be given


def test_every_form_of_a_picture_gives_the_same_scores(classifier: ZeroShotImageClassification) -> None:
    picture = Image.open(CAT).convert("RGB")
    expected = classifier(CAT, LABELS)
    with CAT.open("rb") as file:
        for image in (str(CAT), CAT.read_bytes(), file, picture, np.asarray(picture)):
            assert by_label(classifier(image, LABELS)) == pytest.approx(by_label(expected), abs=1e-6)


def test_an_image_may_be_a_url(classifier: ZeroShotImageClassification) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/cat.jpg"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(CAT.read_bytes() if found else b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        try:
            assert classifier(f"{base}/cat.jpg", LABELS) == classifier(CAT, LABELS)
            with pytest.raises(UnreadableImage, match=f"{base}/no.jpg.*404"):
                classifier(f"{base}/no.jpg", LABELS)
        finally:
            server.shutdown()
            thread.join()


def test_labels_may_be_one_text_with_commas(classifier: ZeroShotImageClassification) -> None:
    assert classifier(CAT, "a cat, two dogs ,coffee") == classifier(CAT, ["a cat", "two dogs", "coffee"])


def test_one_label_gives_a_list_of_one_score(classifier: ZeroShotImageClassification) -> None:
    (entry,) = classifier(CAT, ["a cat"])
    assert entry["label"] == "a cat" and isinstance(entry["score"], float)


def test_no_pictures_give_no_results(classifier: ZeroShotImageClassification) -> None:
    assert classifier([], LABELS) == []
    assert list(classifier(iter([]), LABELS)) == []


def test_several_templates_are_averaged_as_in_the_papers_evaluation(classifier: ZeroShotImageClassification) -> None:
    embedder = classifier.embedder
    prompts = [[f"a photo of {label}." for label in LABELS], [f"{label}, drawn" for label in LABELS]]
    mean = np.mean([embedder.embed_texts(texts).vectors for texts in prompts], axis=0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    expected = embedder.probabilities(embedder.embed_images([CAT]).vectors, mean)[0]
    found = classifier(CAT, LABELS, hypothesis_template=["a photo of {}.", "{}, drawn"])
    assert by_label(found) == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-6)


def test_the_template_is_the_checkpoints_unless_told_otherwise(classifier: ZeroShotImageClassification) -> None:
    assert classifier(CAT, LABELS) == classifier(CAT, LABELS, hypothesis_template="This is a photo of {}.")
    builtin = pipeline("zero-shot-image-classification", "nano")
    assert builtin(CAT, LABELS) == builtin(CAT, LABELS, hypothesis_template=builtin.embedder.processor.templates)
    assert builtin(CAT, LABELS) != builtin(CAT, LABELS, hypothesis_template="This is a photo of {}.")


# ---- streams and broken pictures


def test_a_generator_gives_a_generator_that_reads_two_batches_ahead_at_most(
    classifier: ZeroShotImageClassification,
) -> None:
    taken = 0

    def pictures() -> Iterator[Path]:
        nonlocal taken
        for path in itertools.cycle([CAT, COFFEE]):
            taken += 1
            yield path

    stream = classifier(pictures(), LABELS)
    assert taken == 0
    found = list(itertools.islice(stream, 11))
    assert taken <= 11 + 2 * classifier.embedder.batch_size
    stream.close()
    for result, path in zip(found, itertools.cycle([CAT, COFFEE])):
        assert by_label(result) == pytest.approx(by_label(classifier(path, LABELS)), abs=1e-5)


def test_a_broken_picture_raises_for_one_and_for_a_list(classifier: ZeroShotImageClassification, broken: Path) -> None:
    for images in (broken, [CAT, broken, COFFEE]):
        with pytest.raises(UnreadableImage, match=r"broken\.jpg: .*cut short") as caught:
            classifier(images, LABELS)
        assert caught.value.name == str(broken)


def test_in_a_stream_a_broken_picture_is_a_failure_in_its_place(
    classifier: ZeroShotImageClassification, broken: Path
) -> None:
    first, second, third = classifier((path for path in (CAT, broken, COFFEE)), LABELS)
    assert isinstance(second, Failure) and (second.index, second.name) == (1, str(broken))
    assert by_label(first) == pytest.approx(by_label(classifier(CAT, LABELS)), abs=1e-5)
    assert by_label(third) == pytest.approx(by_label(classifier(COFFEE, LABELS)), abs=1e-5)


def test_bad_labels_are_errors_before_the_stream_starts(classifier: ZeroShotImageClassification) -> None:
    with pytest.raises(InputError, match=r"template 'a photo' has no {}"):
        classifier(iter([CAT]), LABELS, hypothesis_template="a photo")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "got no candidate_labels; give at least one"),
        (" , ", "got no candidate_labels; give at least one"),
        (["cat", "dog", "cat"], r"none repeated, got \['cat'\]"),
        ("cat, dog, cat", r"none repeated, got \['cat'\]"),
        (["cat", "  "], r"none blank .* got \['  '\]"),
    ],
)
def test_labels_that_make_no_sense_are_errors(
    classifier: ZeroShotImageClassification, labels: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        classifier(CAT, labels)


# ---- the other tasks


def test_image_features_are_unit_vectors_as_lists(folder: Path) -> None:
    extract = pipeline("image-feature-extraction", folder, device="cpu", dtype="float32")
    one = extract(CAT)
    assert isinstance(one, list) and isinstance(one[0], float)
    np.testing.assert_allclose(np.linalg.norm(one), 1.0, atol=1e-6)
    peer = transformers.AutoModel.from_pretrained(folder).vision_model
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(Image.open(CAT), return_tensors="pt")
    with torch.no_grad():
        features = peer(**pixels).pooler_output[0]
    np.testing.assert_allclose(one, features / features.norm(), atol=1e-5)
    np.testing.assert_allclose(extract([CAT, COFFEE])[0], one, atol=1e-6)


def test_similarity_is_a_matrix_whose_rows_are_pictures(classifier: ZeroShotImageClassification) -> None:
    similarity = pipeline("image-text-similarity", classifier.embedder)
    texts = ["a cat", "coffee", "a cat"]
    matrix = similarity([CAT, COFFEE], texts)
    assert np.shape(matrix) == (2, 3)
    for row, path in zip(matrix, (CAT, COFFEE), strict=True):
        assert row[0] == pytest.approx(row[2], abs=1e-6)
        scores = by_label(classifier(path, texts[:2], hypothesis_template="{}"))
        assert row[:2] == pytest.approx([scores["a cat"], scores["coffee"]], abs=1e-5)
    assert similarity(CAT, texts) == pytest.approx(matrix[0], abs=1e-5)
    with pytest.raises(InputError, match="got 'a cat'"):
        similarity(CAT, "a cat")


# ---- keywords of a call


@pytest.mark.parametrize(
    ("task", "words", "given", "hint"),
    [
        ("zero-shot-image-classification", [LABELS], "candidate_label", "did you mean 'candidate_labels'"),
        (
            "zero-shot-image-classification",
            [LABELS],
            "top_k",
            "it takes image, candidate_labels, hypothesis_template, ",
        ),
        ("image-feature-extraction", [], "pool", "it takes images, batch_size, timeout"),
        ("image-text-similarity", [LABELS], "bach_size", "did you mean 'batch_size'"),
    ],
)
def test_a_keyword_that_a_call_does_not_have_is_refused_by_name(
    classifier: ZeroShotImageClassification, task: Any, words: Any, given: str, hint: str
) -> None:
    with pytest.raises(InputError, match=f"the pipeline {task} has no keyword {given!r}; {hint}"):
        pipeline(task, classifier.embedder)(CAT, *words, **{given: 2})


def test_a_call_may_have_its_own_batch_size(classifier: ZeroShotImageClassification) -> None:
    sizes: list[int] = []
    hook = classifier.embedder._towers.vision_model.register_forward_pre_hook(
        lambda _, given, named: sizes.append(len((*given, *named.values())[0])), with_kwargs=True
    )
    calls: list[Any] = [
        lambda **size: classifier([CAT] * 5, LABELS, **size),
        lambda **size: pipeline("image-feature-extraction", classifier.embedder)([CAT] * 5, **size),
        lambda **size: pipeline("image-text-similarity", classifier.embedder)([CAT] * 5, LABELS, **size),
    ]
    with hook:
        for call in calls:
            for size, expected in ((2, [2, 2, 1]), (8, [5]), (None, [4, 1])):
                sizes.clear()
                assert len(call(batch_size=size)) == 5
                assert sizes == expected
            for wrong in (0, -1, 2.5, "8"):
                with pytest.raises(InputError, match="batch_size must be a whole number of at least 1, got"):
                    call(batch_size=wrong)


def test_a_call_may_say_how_long_a_web_address_may_take(classifier: ZeroShotImageClassification) -> None:
    features = pipeline("image-feature-extraction", classifier.embedder)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.png"
        for timeout in (0.2, 1):
            with pytest.raises(UnreadableImage, match=f"no complete answer within {timeout} seconds"):
                features(address, timeout=timeout)
    for wrong in (0, -1.0, "2"):
        with pytest.raises(InputError, match="timeout is a number of seconds above 0, got"):
            features(CAT, timeout=wrong)
    assert features(CAT, timeout=None) == features(CAT)


@pytest.mark.parametrize("given", [{"image": CAT, "question": "why?"}, [{"role": "user", "content": "hello"}], None])
def test_dictionaries_and_conversations_in_place_of_pictures_are_told(given: Any) -> None:
    with pytest.raises(InputError, match="expected a picture, a list or an iterator of pictures, got"):
        each(given, lambda items: items, list)


# ---- how to get one


def test_the_built_in_model_sees_a_strawberry() -> None:
    classifier = pipeline("zero-shot-image-classification", model="nano", device=-1, dtype="float32")
    assert classifier(ROOT / "samples" / "strawberry.png", "penguin, strawberry, truck")[0]["label"] == "strawberry"


@pytest.mark.parametrize(
    ("task", "nearest"),
    [
        ("zero-shot-classification", "zero-shot-image-classification"),
        ("feature-extraction", "image-feature-extraction"),
        ("similarity", "image-text-similarity"),
    ],
)
def test_an_unknown_task_names_its_nearest_neighbour(task: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"no task '{task}'; did you mean '{nearest}'"):
        pipeline(task, "nano")  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"device 0 is a CUDA GPU.*pass 'auto'"):
        pipeline("zero-shot-image-classification", "nano", device=0)


def test_options_beside_an_embedder_are_errors(classifier: ZeroShotImageClassification) -> None:
    assert isinstance(classifier.embedder, Embedder)
    with pytest.raises(InputError, match="this Embedder has its own dtype, batch_size"):
        pipeline("image-feature-extraction", classifier.embedder, dtype="float32", batch_size=2)
