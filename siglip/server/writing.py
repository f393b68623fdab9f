"""Pictures of a request -> what a model writes about them: captions, and answers to a question."""

from typing import Any

import numpy as np
from fastapi import FastAPI, Request

from siglip.captioner import Scores, Text
from siglip.errors import InputError, UnreadableImage
from siglip.server import answers, messages
from siglip.server.answers import as_described
from siglip.server.engine import Engine, Wish
from siglip.server.messages import BadRequest
from siglip.server.safety import error_body
from siglip.server.waiting import unless_gone


class Writing:
    """The routes of the model that writes; `name` is what clients call it, None where there is none."""

    def __init__(self, app: FastAPI, engine: Engine, name: str | None) -> None:
        self.engine, self.name = engine, name
        app.post("/v1/caption", **as_described(answers.Captions))(self.caption)
        app.post("/v1/ask", **as_described(answers.Answers))(self.ask)

    async def caption(self, body: messages.CaptionRequest, request: Request) -> dict[str, Any]:
        """A text for each picture, with the probability of the whole text; a bad picture gets an error in its place."""
        wish = Wish(body.prompt, max_tokens=body.max_tokens, beams=body.beams)
        found = await self._written(body, request, wish, "prompt")
        return self._listed([_failed(item) or {"text": item.text, "probability": item.probability} for item in found])

    async def ask(self, body: messages.AskRequest, request: Request) -> dict[str, Any]:
        """An answer for each picture, or the given ones, likeliest first, with probabilities that add up to 1."""
        answers = tuple(body.answers or ())
        if answers and (body.beams > 1 or len(set(answers)) < len(answers)):
            raise BadRequest(
                "answers chooses one of the given texts; leave beams out, and give no answer twice", "answers"
            )
        for place, answer in enumerate(answers):
            if problem := messages.problem_of_text(answer):
                raise BadRequest(problem, f"answers.{place}")
        wish = Wish(f"answer en {body.question}", answers, max_tokens=body.max_tokens, beams=body.beams)
        found = await self._written(body, request, wish, "question")
        return self._listed([_failed(item) or {"answers": _answers(item, answers)} for item in found])

    async def _written(
        self, body: messages.CaptionRequest | messages.AskRequest, request: Request, wish: Wish, param: str
    ) -> list[Any]:
        if self.name is None:
            raise BadRequest(
                "this service runs no model that writes; start it with --captioner MODEL", status=404,
                code="no_captioner",
            )  # fmt: skip
        messages.check_model(body.model, self.name)
        if problem := messages.problem_of_text(wish.prompt):
            raise BadRequest(problem, param)
        names = messages.names_of(body.images)
        problems = [self.engine.sources.problem(name) for name in names]
        good = [name for name, problem in zip(names, problems, strict=True) if problem is None]
        written = iter(await unless_gone(request, self.engine.write(good, wish)))
        found = [next(written) if problem is None else problem for problem in problems]
        if (error := next((item for item in found if isinstance(item, InputError)), None)) is not None:
            raise BadRequest(str(error), param)
        found = [item.reason if isinstance(item, UnreadableImage) else item for item in found]
        if all(isinstance(item, str) for item in found):
            raise BadRequest(f"item 0: {found[0]}", "images.0")
        return found

    def _listed(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        data: list[dict[str, Any]] = []
        for index, record in enumerate(records):
            data.append({"object": "error" if "error" in record else "text", "index": index, **record})
            if "error" in record:
                record["error"]["param"] = f"images.{index}"
        return {"object": "list", "model": self.name, "data": data}


def _failed(item: Any) -> dict[str, Any] | None:
    return error_body(400, item, code="invalid") if isinstance(item, str) else None


def _answers(item: Text | Scores, answers: tuple[str, ...]) -> list[dict[str, Any]]:
    if isinstance(item, Text):
        return [{"answer": item.text, "probability": item.probability}]
    chances = np.exp(item.log_probabilities - item.log_probabilities.max())
    chances = (chances / chances.sum()).tolist()
    return [{"answer": answers[i], "probability": chances[i]} for i in messages.best_first(chances, len(answers))]
