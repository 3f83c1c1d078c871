"""The text layer: tokenizer, chat template, and the streams that turn ids into deltas. Knows no tensors."""

from tenth.text.families import FAMILIES, ThinkingFamily, family_of
from tenth.text.stream import DeltaStream, StopStrings, TextStream
from tenth.text.template import ChatTemplate
from tenth.text.tokenizer import Tokenizer

__all__ = ["FAMILIES", "ChatTemplate", "DeltaStream", "StopStrings", "TextStream", "ThinkingFamily", "Tokenizer",
           "family_of"]
