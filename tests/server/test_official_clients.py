"""The three official clients, plain and async, with a real model: the same text whole and streamed, leaving, errors."""

import asyncio
from contextlib import contextmanager

import anthropic
import ollama
import openai
import pytest

from .running import Held, wait_until
from .test_under_load import idle, n_sequences

pytestmark = pytest.mark.model

HI = [{"role": "user", "content": "Count from one to ten."}]
LONG = 4000


class OpenAI:
    missing = openai.NotFoundError

    def __init__(self, url):
        how = {"base_url": url + "/v1", "api_key": "none", "max_retries": 0}
        self.plain, self.later = openai.OpenAI(**how), lambda: openai.AsyncOpenAI(**how)

    def ask(self, client, n, model="small", **how):
        return client.chat.completions.create(model=model, messages=HI, temperature=0, max_tokens=n, **how)

    def text(self, said):
        return said.choices[0].message.content

    def piece(self, chunk):
        return chunk.choices[0].delta.content or ""


class Responses(OpenAI):
    def ask(self, client, n, model="small", **how):
        return client.responses.create(model=model, input=HI, temperature=0, max_output_tokens=n, **how)

    def text(self, said):
        return said.output_text

    def piece(self, event):
        return event.delta if event.type == "response.output_text.delta" else ""


class Anthropic:
    missing = anthropic.NotFoundError

    def __init__(self, url):
        how = {"base_url": url, "api_key": "none", "max_retries": 0}
        self.plain, self.later = anthropic.Anthropic(**how), lambda: anthropic.AsyncAnthropic(**how)

    def ask(self, client, n, model="small", **how):
        return client.messages.create(model=model, messages=HI, max_tokens=n, extra_body={"temperature": 0}, **how)

    def text(self, said):
        return said.content[0].text

    def piece(self, event):
        return event.delta.text if event.type == "content_block_delta" else ""


class Ollama:
    missing = ollama.ResponseError

    def __init__(self, url):
        how = {"host": url, "trust_env": False}
        self.plain, self.later = ollama.Client(**how), lambda: ollama.AsyncClient(**how)

    def ask(self, client, n, model="small", **how):
        return client.chat(model=model, messages=HI, options={"temperature": 0, "num_predict": n}, **how)

    def text(self, said):
        return said.message.content

    def piece(self, chunk):
        return chunk.message.content or ""


@pytest.fixture(params=[OpenAI, Responses, Anthropic, Ollama], ids=lambda kind: kind.__name__)
def client(request, real):
    found = request.param(real.url)
    with found.plain:
        yield found


def test_the_text_is_the_same_whole_streamed_and_async(client):
    whole = client.text(client.ask(client.plain, 40))
    assert len(whole) > 20
    assert "".join(map(client.piece, client.ask(client.plain, 40, stream=True))) == whole

    async def streamed(later):
        return "".join([client.piece(chunk) async for chunk in await client.ask(later, 40, stream=True)])

    async def main():
        async with client.later() as later:
            return await asyncio.gather(client.ask(later, 40), streamed(later), streamed(later))

    said, *texts = asyncio.run(main())
    assert [client.text(said), *texts] == [whole] * 3


@contextmanager
def held_until_left(real):
    """The engine stops in the midst of an answer, and goes on when the server knows that its reader has gone."""
    with Held(real.opened(), after=8) as held:
        yield held
        wait_until(lambda: idle(real))
        assert n_sequences(real) == 1
        held.go.set()
        wait_until(lambda: not n_sequences(real))
        assert len(held.steps) <= 10


def test_a_stream_that_is_left_is_computed_no_further(client, real):
    with held_until_left(real) as held:
        stream = client.ask(client.plain, LONG, stream=True)
        next(iter(stream))
        held.wait()
        stream.close()

    async def leave(held):
        async with client.later() as later:
            stream = await client.ask(later, LONG, stream=True)
            async for _ in stream:
                break
            await asyncio.to_thread(held.wait)
            await (stream.aclose() if hasattr(stream, "aclose") else stream.close())

    with held_until_left(real) as held:
        asyncio.run(leave(held))


def test_a_request_whose_task_is_cancelled_is_computed_no_further(client, real):
    async def cancel(held):
        async with client.later() as later:
            task = asyncio.ensure_future(client.ask(later, LONG))
            await asyncio.to_thread(held.wait)
            task.cancel()
            await asyncio.wait({task})

    with held_until_left(real) as held:
        asyncio.run(cancel(held))


def test_errors_are_the_client_s_own(client):
    with pytest.raises(client.missing) as caught:
        client.ask(client.plain, 5, model="gpt-4o")
    assert caught.value.status_code == 404
    assert "small" in str(caught.value)
