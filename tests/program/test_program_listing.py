from tenth.program import memory, passes
from tenth.program.listing import listing


def test_every_instruction_has_a_line_that_says_what_it_does(program):
    memory.plan(program, {"tokens": 4, "outputs": 4})
    lines = listing(program).splitlines()
    assert lines[0] == f"test: {len(program.instructions)} instructions, 11 weights, 1 KV layers, 11 logits"
    assert len(lines) == 1 + len(program.instructions)
    assert lines[1].startswith("   0  rope_angles    t0[n, 4]@")
    assert lines[1].endswith(" <- positions  inv_freq=(1, 0.1) scale=0.9")
    store = next(line for line in lines if "kv_store" in line)
    assert "- <- " in store
    assert "layer=0" in store


def test_q8_and_views_are_visible(program, matrices):
    text = listing(passes.optimise(program, matrices))
    assert "[n, 32] q8 <-" in text
    assert "[n, 4, 8] <- t3[n, 4, 8]" in text
