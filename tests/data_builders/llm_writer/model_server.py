"""A server with OpenAI's chat completions over a transformers model, for tests: `python model_server.py MODEL PORT`."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from data_builders.llm_writer.endpoint import LlmRequest, RequestRefused, Sampling
from data_builders.llm_writer.local_model import LocalModel


def app(model: LocalModel) -> Starlette:
    """The route `/v1/chat/completions`; one reply at a time, others wait."""

    async def complete(request: Request) -> JSONResponse:
        body = await request.json()
        if body["model"] != model.model:
            return JSONResponse({"error": f"the model '{body['model']}' is not here"}, 404)
        asked = LlmRequest(
            body["model"],
            "",
            "",
            tuple((message["role"], message["content"]) for message in body["messages"]),
            Sampling(**{name: body[name] for name in ("max_tokens", "temperature", "top_p", "seed") if name in body}),
            body.get("response_format", {}).get("json_schema", {}).get("schema"),
        )
        try:
            reply = await model.ask(asked)
        except RequestRefused as refusal:
            return JSONResponse({"error": str(refusal)}, 400)
        message = {"role": "assistant", "content": reply.text}
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish}
        return JSONResponse({"object": "chat.completion", "choices": [choice], "usage": usage})

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(app(LocalModel(sys.argv[1])), port=int(sys.argv[2]), log_level="warning")
