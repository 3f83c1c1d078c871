"""Tools: what a request says of them, how models write calls, and what reads them out of an answer as it comes."""

from tenth.text.tools.formats import FORMATS, GENERIC, ToolFormat, format_of
from tenth.text.tools.reading import CallParser, Event
from tenth.text.tools.request import Tool, ToolRequest, read_tools

__all__ = ["FORMATS", "GENERIC", "CallParser", "Event", "Tool", "ToolFormat", "ToolRequest", "format_of", "read_tools"]
