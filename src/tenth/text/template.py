"""Conversations to prompts: the chat template of the file, run in the sandbox, or a plain stand-in when it has none.

The sandbox is imported when it is needed: Jinja takes 15 ms, and a model is loaded without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from tenth.errors import Cause, ModelFileError, RequestError, TenthError
from tenth.text.families import SWITCHES, ThinkingFamily, family_of
from tenth.text.metadata import MetadataSource, Texts

Message = Mapping[str, Any]
_KEY = "tokenizer.chat_template"
_HINT = "give another template with --template FILE"

# For files without a template, by a token that the vocabulary has: (token, name, template).
_FALLBACKS = (
    ("<|im_start|>", "ChatML",
     "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
     "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"),
    ("<start_of_turn>", "Gemma",
     "{{ bos_token }}{% for m in messages %}"
     "{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
     "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
     "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"),
    ("<|start_header_id|>", "Llama 3",
     "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
     "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
     "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"),
)
_PLAIN = ("{{ bos_token }}{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
          "{% if add_generation_prompt %}Assistant:{% endif %}")


class ChatTemplate:
    """One chat template.

    ``source``: where it comes from, in words. ``text``: the template itself. ``family``: how the model marks thinking,
    None if it does not think. ``system_merged``: whether the last render put the system message into the first user
    message, because the template refuses the system role.
    """

    def __init__(self, text: str, source: str, *, tokens: Mapping[str, str] | None = None, from_user: bool = False):
        self.text = text
        self.source = source
        self.family: ThinkingFamily | None = family_of(text)
        self.system_merged = False
        self._tokens = dict(tokens or {})
        self._error = RequestError if from_user else ModelFileError

    @classmethod
    def from_metadata(cls, metadata: MetadataSource, override: str | None = None, *, name: str | None = None,
                      vocabulary: Texts | None = None) -> ChatTemplate:
        """The template to use: ``override`` (its text), the file's (``name``: a variant), or one by vocabulary.

        ``vocabulary``: the file's tokens, which are read if they are not given.
        """
        if vocabulary is None and metadata.has("tokenizer.ggml.tokens"):
            vocabulary = metadata.get_texts("tokenizer.ggml.tokens")
        tokens = _token_texts(metadata, vocabulary)
        if override is not None:
            return cls(override, "given by the user", tokens=tokens, from_user=True)
        key = f"{_KEY}.{name}" if name else _KEY
        if metadata.has(key):
            return cls(metadata.get_str(key), f"the file ({key})", tokens=tokens)
        if name:
            raise RequestError(f"the file has no chat template named {name!r}, it has: {', '.join(variants(metadata))}")
        return cls(*_fallback(vocabulary), tokens=tokens)

    @cached_property
    def has_switch(self) -> bool:
        """Whether the template can be asked for thinking or none. Reading it takes 2 to 20 ms, so not while loading."""
        from tenth.text import sandbox

        return not sandbox.variables_of(self.text).isdisjoint(SWITCHES)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True,
               tools: Sequence[Mapping[str, Any]] | None = None, thinking: bool | None = None,
               extra: Mapping[str, Any] | None = None) -> str:
        """The prompt for ``messages``.

        ``thinking``: ask for it, ask for none, or leave it to the template. ``extra``: further variables; those above
        win. Raises RequestError for messages that cannot be rendered, ModelFileError for a template that is broken.
        """
        _check_length(messages)
        variables: dict[str, Any] = {**(extra or {}), **self._tokens, "messages": _plain(messages), "documents": None,
                                     "add_generation_prompt": add_generation_prompt,
                                     "tools": _plain(tools) if tools else None}
        if thinking is not None:
            variables.update(dict.fromkeys(SWITCHES, thinking))
        prompt = self._with_system(variables)
        return self._without_thought(prompt) if thinking is False and add_generation_prompt else prompt

    def _with_system(self, variables: dict[str, Any]) -> str:
        """Renders; when the template refuses a system message, once more with it inside the first user message."""
        self.system_merged = False
        try:
            return self._run(variables)
        except TenthError:
            merged = _merge_system(variables["messages"])
            if merged is None:
                raise
            try:
                prompt = self._run({**variables, "messages": merged})
            except TenthError:
                prompt = None
            if prompt is None:
                raise
            self.system_merged = True
            return prompt

    def _without_thought(self, prompt: str) -> str:
        """An empty thought at the end of the prompt, where the template has not arranged for none itself."""
        family = self.family
        if family is None or not family.empty:
            return prompt
        if prompt.rstrip("\n ").endswith(family.opening.rstrip("\n ")):
            return prompt.rstrip("\n ") + family.closing_text
        if self.has_switch or prompt.rstrip("\n ").endswith((family.closing, family.empty.rstrip("\n "))):
            return prompt
        return prompt + family.empty

    def _run(self, variables: Mapping[str, Any]) -> str:
        import jinja2

        from tenth.text import sandbox
        from tenth.text.allowance import LimitReached

        try:
            return sandbox.run(self.text, variables)
        except sandbox.TemplateRefused as error:
            raise RequestError(f"the chat template refuses this conversation: {error}", hint=_HINT,
                               cause=Cause("template-refuses")) from None
        except LimitReached as error:
            raise self._error(f"the chat template was stopped: {error}", hint=_HINT) from None
        except jinja2.TemplateSyntaxError as error:
            reason = f"line {error.lineno}: {error.message}"
            raise self._error(f"the chat template cannot be read, {reason}", hint=_HINT) from None
        except (RecursionError, MemoryError):
            raise self._error("the chat template was stopped: it nests too deeply", hint=_HINT) from None
        except Exception as error:  # whatever its expressions raise: a template is a program of its own
            reason = f"{type(error).__name__}: {str(error)[:300]}"
            raise RequestError(f"the chat template fails on this conversation: {reason}", hint=_HINT,
                               cause=Cause("template-refuses")) from None


def variants(metadata: MetadataSource) -> list[str]:
    """The names of the file's further templates (``tokenizer.chat_template.NAME``), sorted."""
    keys = metadata.keys()
    return sorted(key.removeprefix(_KEY + ".") for key in keys if key.startswith(_KEY + "."))


def _check_length(messages: Sequence[Message]) -> None:
    """Refuses what no template may print, and no context holds, before a template is blamed for it."""
    from tenth.text import sandbox

    n_chars = sum(len(message.get("content") or "") for message in messages)
    if n_chars > sandbox.MAX_OUTPUT_CHARS:
        raise RequestError(f"the conversation has {n_chars} characters, expected at most {sandbox.MAX_OUTPUT_CHARS}",
                           hint="shorten it",
                           cause=Cause("conversation-long", n=n_chars, most=sandbox.MAX_OUTPUT_CHARS))


def _plain(values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies that a template can neither change nor reach other objects through."""
    return [dict(value) for value in values]


def _merge_system(messages: Sequence[Message]) -> list[Message] | None:
    """The messages with the first, of the system, put before the text of the user's, which follows; else None."""
    if len(messages) < 2 or messages[0].get("role") != "system" or messages[1].get("role") != "user":
        return None
    system, user = messages[0].get("content"), messages[1].get("content")
    if not isinstance(system, str) or not isinstance(user, str):
        return None
    return [{**messages[1], "content": f"{system}\n\n{user}"}, *messages[2:]]


def _token_texts(metadata: MetadataSource, tokens: Texts | None) -> dict[str, str]:
    """``bos_token`` and ``eos_token`` as templates call them; "" where the file has none."""
    texts = {"bos_token": "", "eos_token": ""}
    for name in texts:
        token = metadata.get_int(f"tokenizer.ggml.{name}_id", default=None)
        if tokens is not None and token is not None and 0 <= token < len(tokens):
            texts[name] = tokens[token]
    return texts


def _fallback(tokens: Texts | None) -> tuple[str, str]:
    """(template, where it comes from) for a file without one."""
    found = tokens.find(token for token, _, _ in _FALLBACKS) if tokens is not None else {}
    for token, name, text in _FALLBACKS:
        if token in found:
            return text, f"{name}, because the file has no chat template but the token {token}"
    return _PLAIN, "plain roles, because the file has no chat template and no tokens of a known one"
