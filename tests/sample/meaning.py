"""The meaning of native/ops/sample.h in NumPy: every token sorted, every filter spelled out, no short cuts.

Arithmetic follows the native order (blocks of 64 in 16 lanes), so that tokens and log-probabilities are equal bit for
bit and a test needs no tolerance.
"""

import math

import numpy as np

F = np.float32


def exp(x):
    x = np.asarray(x, F)
    clamped = np.where(x > F(-87), x, F(-87))
    shifted = clamped * F(1.44269504) + F(12582912)
    n = shifted - F(12582912)
    r = (clamped - n * F(0.693359375)) - n * F(-2.12194440e-4)
    p = np.full_like(x, F(1) / F(5040))
    for c in (F(1) / F(720), F(1) / F(120), F(1) / F(24), F(1) / F(6), F(0.5), F(1), F(1)):
        p = p * r + c
    p = (p.view(np.int32) + (n.astype(np.int32) << 23)).view(F)
    return np.where(x < F(-87), F(0), p)


def ln(x):
    m, e = math.frexp(x)
    m, e = m * 2, e - 1
    if m > 1.4142135623730951:
        m, e = m * 0.5, e + 1
    s = (m - 1) / (m + 1)
    q, total = s * s, 0.0
    for k in range(21, 0, -2):
        total = total * q + 1.0 / k
    return 2 * s * total + e * 0.69314718055994530942


def philox(counter, key):
    """Philox4x32-10, words of 32 bits."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k1, a & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def random_unit(seed, counter):
    words = philox((counter & 0xFFFFFFFF, counter >> 32, 0, 0), (seed & 0xFFFFFFFF, seed >> 32))
    return float((words[0] << 21) | (words[1] >> 11)) * 2.0**-53


def inverse(temperature):
    return min(F(1) / F(temperature), np.finfo(F).max)


def block_sums(x, temperature):
    padded = np.full(-(-len(x) // 64) * 64, F(-np.inf))
    padded[: len(x)] = x
    weights = exp((padded - x.max()) * inverse(temperature)).reshape(-1, 4, 16)
    lanes = ((weights[:, 0] + weights[:, 1]) + weights[:, 2]) + weights[:, 3]
    for width in (8, 4, 2, 1):
        lanes = lanes[:, :width] + lanes[:, width : 2 * width]
    return lanes[:, 0]


def running(values):
    """Sums in double, strictly in order."""
    return np.add.accumulate(np.asarray(values, np.float64)) if len(values) else np.zeros(0)


def change(logits, s, i):
    x = logits.copy()
    if s.mask is not None:
        bits = (s.mask[i][np.arange(len(x)) // 32] >> (np.arange(len(x)) % 32).astype(np.uint32)) & 1
        x[bits == 0] = -np.inf
    for token, value in zip(*s.bias[i], strict=True):
        x[token] += value
    history = s.history[i]
    for token in np.unique(history):
        x[token] = x[token] / s.repetition[i] if x[token] > 0 else x[token] * s.repetition[i]
        n = int((history[s.n_prompt[i] :] == token).sum())
        if n:
            x[token] = x[token] - (s.presence[i] + s.frequency[i] * F(n))
    return x


def order(x):
    """Ids, greatest logit first, equal ones by lower id; never one with -inf."""
    ids = np.lexsort((np.arange(len(x)), -x))
    return ids[x[ids] > -np.inf]


def choose(x, s, i):
    ids = order(x)
    temperature = s.temperature[i]
    if temperature == 0:
        return ids[0]
    unit = random_unit(int(s.seed[i]), int(s.counter[i]))
    top_k = 0 < s.top_k[i] < len(x)
    if not top_k and s.top_p[i] >= 1 and s.min_p[i] <= 0:
        return draw_any(x, temperature, unit)
    if top_k:
        ids = ids[: s.top_k[i]]
    weights = exp((x[ids] - x.max()) * inverse(temperature))
    sums = running(weights)
    if s.top_p[i] < 1:
        total = sums[-1] if top_k else running(block_sums(x, temperature))[-1]
        enough = np.flatnonzero(sums >= float(s.top_p[i]) * total)
        ids = ids[: enough[0] + 1] if len(enough) else ids
    weights = exp((x[ids] - x.max()) * inverse(temperature))
    if s.min_p[i] > 0:
        ids, weights = ids[weights >= s.min_p[i]], weights[weights >= s.min_p[i]]
    sums = running(weights)
    over = np.flatnonzero(sums > unit * sums[-1])
    return ids[over[0]] if len(over) else ids[0]


def draw_any(x, temperature, unit):
    blocks = block_sums(x, temperature)
    before = np.concatenate([[0.0], running(blocks)])
    target = unit * before[-1]
    block = int(np.flatnonzero(before[1:] > target)[0])
    weights = exp((x[block * 64 : block * 64 + 64] - x.max()) * inverse(temperature))
    sums = running(np.concatenate([[before[block]], weights]))[1:]
    over = np.flatnonzero(sums > target)
    return block * 64 + int(over[0] if len(over) else np.flatnonzero(weights > 0)[-1])


def sample_rows(logits, s):
    """(tokens, logprobs, list of top ids, list of top logprobs) of rows that have an answer."""
    tokens, logprobs, top_ids, top_logprobs = [], [], [], []
    for i, row in enumerate(logits):
        log_sum = ln(running(block_sums(row, 1))[-1])
        raw = (row.astype(np.float64) - float(row.max()) - log_sum).astype(F)
        token = choose(change(row, s, i), s, i)
        tokens.append(token)
        logprobs.append(raw[token])
        top = order(row)[: s.n_top[i]]
        top_ids.append(top)
        top_logprobs.append(raw[top])
    return np.array(tokens), np.array(logprobs), top_ids, top_logprobs
