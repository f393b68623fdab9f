"""Texts and pictures of a request -> vectors, probabilities and orders: embeddings, classify, score and rerank."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response

from siglip.embedder import Embedder
from siglip.errors import InputError, UnreadableImage
from siglip.server import answers, messages
from siglip.server.answers import as_described
from siglip.server.engine import Engine
from siglip.server.messages import BadRequest
from siglip.server.safety import error_body
from siglip.server.waiting import unless_gone

# prompts of one request: labels times templates
_MAX_PROMPTS = 4096
_FEW_LETTERS = 10_000


class Comparing:
    """The routes of the model that compares; `name` is what clients call it."""

    def __init__(self, app: FastAPI, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name
        self.embedder: Embedder = engine.embedder
        app.post("/v1/embeddings", response_model=None, responses={200: {"model": answers.Embeddings}})(self.embeddings)
        app.post("/v1/classify", **as_described(answers.Classes))(self.classify)
        app.post("/v1/score", **as_described(answers.Scores))(self.score)
        app.post("/v1/rerank", **as_described(answers.Ranking))(self.rerank)

    async def embeddings(self, body: messages.EmbeddingsRequest, request: Request) -> Response:
        """Unit vectors of texts and pictures; a bad item gets an error in its place, unless `strict`."""
        messages.check_model(body.model, self.name)
        dim = self.embedder.model.config.text_config.embedding_size
        if body.dimensions not in (None, dim):
            raise BadRequest(f"dimensions={body.dimensions}, but the vectors of {self.name} have {dim}", "dimensions")
        items = messages.items_of(body)
        found = await unless_gone(request, self._vectors(items))
        bad = [outcome for outcome in found if isinstance(outcome, str)]
        if bad and (body.strict or len(bad) == len(items)):
            place = next(index for index, outcome in enumerate(found) if isinstance(outcome, str))
            raise BadRequest(f"item {place}: {bad[0]}", f"input.{place}")
        data: list[dict[str, Any]] = []
        for index, outcome in enumerate(found):
            if isinstance(outcome, str):
                error = error_body(400, outcome, code="invalid", param=f"input.{index}")
                data.append({"object": "error", "index": index, "embedding": [], **error})
            else:
                vector = messages.vector_as(outcome, body.encoding_format)
                data.append({"object": "embedding", "index": index, "embedding": vector})
        good = [item for item, outcome in zip(items, found, strict=True) if not isinstance(outcome, str)]
        # letters that take long to be counted are not for the thread that all requests share
        few = sum(len(value) for kind, value in good if kind == "text") < _FEW_LETTERS
        usage = messages.usage(self._tokens(good) if few else await asyncio.to_thread(self._tokens, good))
        # FastAPI would look at each number of each vector before it writes them
        answer = {"object": "list", "model": self.name, "data": data, "usage": usage}
        return Response(messages.as_json(answer), media_type="application/json")

    async def classify(self, body: messages.ClassifyRequest, request: Request) -> dict[str, Any]:
        """For each picture the labels that fit it best, each with its own probability."""
        messages.check_model(body.model, self.name)
        templates = body.templates if body.templates is not None else self.embedder.processor.templates
        if len(body.labels) * len(templates) > _MAX_PROMPTS:
            raise BadRequest(
                f"{len(body.labels)} labels in {len(templates)} templates are more than {_MAX_PROMPTS} prompts",
                "labels",
            )
        for place, label in enumerate(body.labels):
            if problem := messages.problem_of_text(label):
                raise BadRequest(problem, f"labels.{place}")
        images = [("image", name) for name in messages.names_of(body.images)]
        pictures = await unless_gone(request, self.all_vectors(images, ["images"] * len(images)))
        try:
            labels = await unless_gone(request, self.engine.labels(body.labels, templates))
        except InputError as error:
            raise BadRequest(str(error), "templates") from error
        data: list[dict[str, Any]] = []
        for index, row in enumerate(self.embedder.probabilities(pictures, labels).tolist()):
            best = messages.best_first(row, body.top)
            data.append({"index": index, "labels": [{"label": body.labels[at], "score": row[at]} for at in best]})
        return {"object": "list", "model": self.name, "data": data}

    async def score(self, body: messages.ScoreRequest, request: Request) -> dict[str, Any]:
        """The probability of every pair: rows are pictures, columns texts."""
        messages.check_model(body.model, self.name)
        items = [("image", name) for name in messages.names_of(body.images)] + [("text", text) for text in body.texts]
        params = ["images"] * len(body.images) + ["texts"] * len(body.texts)
        vectors = await unless_gone(request, self.all_vectors(items, params))
        images, texts = vectors[: len(body.images)], vectors[len(body.images) :]
        return {
            "object": "list",
            "model": self.name,
            "probabilities": self.embedder.probabilities(images, texts).tolist(),
            "cosines": self.embedder.similarity(images, texts).tolist(),
        }

    async def rerank(self, body: messages.RerankRequest, request: Request) -> dict[str, Any]:
        """Documents by how likely they belong to the query, the likeliest first."""
        messages.check_model(body.model, self.name)
        query, documents = messages.one_of(body.query), [messages.one_of(item) for item in body.documents]
        if any(kind == query[0] for kind, _ in documents):
            raise BadRequest(
                "query and documents must differ in kind, a text against pictures or the other way: the model "
                "gives no probability for two of one kind", "documents",
            )  # fmt: skip
        params = ["query"] + ["documents"] * len(documents)
        vectors = await unless_gone(request, self.all_vectors([query, *documents], params))
        asked, offered = vectors[:1], vectors[1:]
        pair = (offered, asked) if query[0] == "text" else (asked, offered)
        scores: list[float] = self.embedder.probabilities(*pair).ravel().tolist()
        results: list[dict[str, Any]] = []
        for place in messages.best_first(scores, body.top_n or len(scores)):
            kind, value = documents[place]
            document = {"document": {kind: value}} if body.return_documents else {}
            results.append({"index": place, "relevance_score": scores[place], **document})
        return {"model": self.name, "results": results}

    # ---- what they stand on

    async def _vectors(self, items: Sequence[tuple[str, str]]) -> list[Any]:
        """For each item its vector, or a text that says why there is none."""
        problem = self.engine.sources.problem
        found: list[Any] = [
            problem(value) if kind == "image" else messages.problem_of_text(value) for kind, value in items
        ]
        good = [place for place, problem in enumerate(found) if problem is None]
        texts = [place for place in good if items[place][0] == "text"]
        pictures = [place for place in good if items[place][0] == "image"]
        made, seen = await self.engine.embed(
            [items[place][1] for place in texts], [items[place][1] for place in pictures]
        )
        for place, outcome in zip([*texts, *pictures], [*made, *seen], strict=True):
            found[place] = outcome.reason if isinstance(outcome, UnreadableImage) else outcome
        return found

    async def all_vectors(self, items: Sequence[tuple[str, str]], params: Sequence[str]) -> np.ndarray:
        """The vectors of items that must all be good; `params` names the field of each."""
        found = await self._vectors(items)
        for place, outcome in enumerate(found):
            if isinstance(outcome, str):
                number = params[:place].count(params[place])
                raise BadRequest(f"{params[place]} {number}: {outcome}", f"{params[place]}.{number}")
        return np.stack(found)

    def _tokens(self, items: Sequence[tuple[str, str]]) -> int:
        vision = self.embedder.model.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        longest = self.embedder.model.config.text_config.max_position_embeddings
        count = self.embedder.processor.tokenizer.count
        return sum(patches if kind == "image" else min(count(value), longest) for kind, value in items)
