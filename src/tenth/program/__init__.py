"""Programs: what models become.

Model files are written in the words of ``builder``; ``recording`` keeps the program they leave, ``passes`` improve it,
``memory`` places it, native runs it.
"""

from tenth.program.ops import OPS, Op
from tenth.program.values import Attr, Dtype, Instruction, KvLayer, Program, Rows, Value

__all__ = ["OPS", "Attr", "Dtype", "Instruction", "KvLayer", "Op", "Program", "Rows", "Value"]
