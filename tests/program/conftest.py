"""Small programs, written with the builder directly: no model file, no metadata."""

import numpy as np
import pytest

from tenth.program import builder as b

SHAPES = {
    "token_embd.weight": (11, 32),
    "norm.weight": (32,),
    "q_norm.weight": (8,),
    "attn_q.weight": (32, 32),
    "attn_k.weight": (16, 32),
    "attn_k.bias": (16,),
    "attn_v.weight": (16, 32),
    "attn_output.weight": (32, 32),
    "ffn_gate.weight": (64, 32),
    "ffn_up.weight": (64, 32),
    "ffn_down.weight": (32, 64),
}
MATRICES = {name for name, shape in SHAPES.items() if len(shape) == 2}


def one_layer(window=0):
    """A program with every op that model files may use."""
    made = b.Builder(SHAPES)
    w = b.Weights(made)
    angles = b.rope_angles(made.inputs["positions"], (1.0, 0.1), scale=0.9)
    x = b.embed(made.inputs["tokens"], w.token_embd, scale=1.5)
    h = b.rms_norm(x, w.norm, 1e-5)
    q = b.rms_norm(b.heads(b.linear(h, w.attn_q), 4), w.q_norm, 1e-5)
    k, v = b.heads(b.linear(h, w.attn_k), 2), b.heads(b.linear(h, w.attn_v), 2)
    q, k = b.rope(q, angles, "half"), b.rope(k, angles, "half")
    seen = b.attention(q, k, v, layer=0, scale=0.3, window=window, softcap=20.0)
    x = x + b.linear(seen, w.attn_output)
    h = b.rms_norm(x, w.norm, 1e-5)
    x = x + b.linear(b.swiglu(b.linear(h, w.ffn_gate), b.linear(h, w.ffn_up)), w.ffn_down)
    x = x + b.linear(b.geglu(b.linear(x, w.ffn_gate), b.linear(x, w.ffn_up)), w.ffn_down)
    x = b.scale(b.select_outputs(x), 0.5)
    return made.finish(b.softcap(b.linear(x, w.token_embd), 3.0), "test", 64)


@pytest.fixture
def program():
    return one_layer()


@pytest.fixture
def weights():
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in SHAPES.items()}


@pytest.fixture
def matrices():
    """Weights that a quantised file would hold in blocks, whose products read int8."""
    return dict.fromkeys(MATRICES, "q8")
