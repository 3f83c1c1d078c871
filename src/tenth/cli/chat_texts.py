"""What the chat says of itself, of a model, and of what an answer took."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenth.model import Model
    from tenth.stream import Stream

HELP = """\
/system TEXT      instructions for the model (without: show; "none" removes)
/set NAME VALUE   change temperature, think, thinking_budget or another setting
                  (without: show what is set; VALUE "default" resets)
/retry            answer the last question again
/clear            begin another conversation
/chats [WORDS]    list the last conversations, or those with these words; the
                  page of tenth app has them too
/open N           go on with number N of that list
/delete           delete this conversation, for good
/save FILE        write the conversation: JSON for .json, else Markdown
/load FILE        read a conversation saved as JSON
/stats            show what the last answer cost
/model [NAME]     show the model, or go on with another one
/help             show this
/exit             leave (Ctrl-D too)

A line that ends in \\ goes on in the next one; between two lines of \"\"\"
everything is one message. Ctrl-C stops an answer."""


def describe(model: Model) -> str:
    """One line about a model."""
    about = model.description
    return (f"{about['architecture']}, {about['parameters'] / 1e6:,.0f} M parameters ({' '.join(about['formats'])}), "
            f"context of {about['context_tokens']} tokens")


def speed_line(stream: Stream) -> str:
    """What an answer took, in one line."""
    times = stream.timings
    parts = [f"{stream.usage.completion_tokens} tokens"]
    if times.generated_tokens_per_second:
        parts.append(f"{times.generated_tokens_per_second:.1f} tokens/s")
    if times.first_token_s is not None:
        parts.append(f"first after {times.first_token_s:.2f} s")
    if stream.finish_reason == "length":
        parts.append("cut off at the limit")
    return ", ".join(parts)
