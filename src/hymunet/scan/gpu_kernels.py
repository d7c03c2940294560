"""The Triton kernels of the selective scan, and how the work is cut.

A program owns one batch entry, one direction, one block of channels and one
segment of 32 steps; its state (state x channels) stays in registers. One program for a whole
sequence would leave a large GPU idle: batch 1 with 4 directions of 128 channels is 16 programs
of one warp, each waiting for memory at every one of up to 65 536 steps. With segments the same
problem at length 1024 is 512 programs. The price is a second pass over the inputs:

    1. each segment from a zero state: its last state and the sum of its step sizes
    2. joined in sequence: start[s+1] = exp(A sum of steps) start[s] + last[s]; 1/32 of the work
    3. each segment again, from its true start

The backward needs the starts anyway, as check-points, and joins the gradients that flow against the
walk in the same way. Within a segment states are recomputed in runs of 16 steps and kept four at a
time, so that memory is a constant times the inputs, whatever the length. The decay of a segment is
one rounded exponential and not a product of 32, which keeps digits in long, slowly decaying scans.

Nothing is added atomically. Directions, channel blocks and segments write to places of their own,
which are summed in a fixed order afterwards: results repeat bit for bit.
"""

# the kernels' arguments are pointers and blocks, which Triton types by itself
# mypy: allow-untyped-defs, allow-incomplete-defs

import math

import triton
import triton.language as tl

# exp(x) is computed as 2^(x log2 e), and A already carries the factor
LN2: tl.constexpr = tl.constexpr(math.log(2.0))

# Axes: b batch, l token, k direction, s segment, n state, c channel. State blocks are (n, c): the
# sum over states stays mostly within a thread, and what is stored is contiguous over channels.


@triton.jit
def _own_place(segments, directions, blocks):
    """Batch entry, direction, segment and channel block of this program, as int64."""
    pid = tl.program_id(0).to(tl.int64)
    # channel blocks side by side: neighbours in flight share the rows of B, C and the order
    i_c = pid % blocks
    i_s = (pid // blocks) % segments
    i_k = (pid // (blocks * segments)) % directions
    i_b = pid // (blocks * segments * directions)
    return i_b, i_k, i_s, i_c


@triton.jit
def _softplus(b_x):
    """log(1 + e^x), the identity above 20, as torch has it."""
    b_e = tl.exp(tl.where(b_x > 20.0, 20.0, b_x))
    b_w = 1.0 + b_e
    # what rounding took from 1 + e is put back, so that tiny steps keep their digits
    b_kept = b_w - 1.0
    b_log = tl.log(b_w) * (b_e / tl.where(b_kept == 0.0, 1.0, b_kept))
    b_log = tl.where(b_kept == 0.0, b_e, b_log)
    return tl.where(b_x > 20.0, b_x, b_log)


@triton.jit
def _softplus_slope(b_x):
    """Derivative of `_softplus`."""
    b_e = tl.exp(tl.where(b_x > 20.0, 20.0, b_x))
    return tl.where(b_x > 20.0, 1.0, b_e / (1.0 + b_e))


@triton.jit
def _step(
    p_u, p_delta, p_B, p_order, t, end, u_l, delta_l, B_l, b_bias, m_c, m_n,
    HAS_ORDER: tl.constexpr, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """Of step t: its token, raw step size, step size, input and B. Past the end the step has size
    0, which leaves a state as it is."""
    m_t = t < end
    i_l = tl.load(p_order + t, mask=m_t, other=0) if HAS_ORDER else tl.where(m_t, t, 0)
    m_c = tl.where(m_t, m_c, False)  # not m_c & m_t: the interpreter widens a scalar's bit
    b_u = tl.load(p_u + i_l * u_l, mask=m_c, other=0.0).to(b_bias.dtype)
    b_B = tl.load(p_B + i_l * B_l, mask=tl.where(m_t, m_n, False), other=0.0).to(b_bias.dtype)
    b_x = tl.load(p_delta + i_l * delta_l, mask=m_c, other=0.0).to(b_bias.dtype) + b_bias
    b_dt = b_x
    if SOFTPLUS:
        b_dt = _softplus(b_x)
    b_dt = tl.where(m_c, b_dt, 0.0)
    return i_l, b_x, b_dt, b_u, b_B


@triton.jit
def _next_state(
    b_h, b_A, b_bias, p_u, p_delta, p_B, p_order, t, end, u_l, delta_l, B_l, m_c, m_n,
    HAS_ORDER: tl.constexpr, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """The state after step t, or `b_h` itself past the end."""
    _i_l, _b_x, b_dt, b_u, b_B = _step(
        p_u, p_delta, p_B, p_order, t, end, u_l, delta_l, B_l, b_bias, m_c, m_n,
        HAS_ORDER, SOFTPLUS,
    )  # fmt: skip
    return tl.exp2(b_dt[None, :] * b_A) * b_h + b_B[:, None] * (b_dt * b_u)[None, :]


@triton.jit
def walk_segments(
    p_u, p_delta, p_B, p_C, p_A, p_bias, p_order,
    u_b, u_l, delta_b, delta_l, delta_k, B_b, B_l, B_k, C_b, C_l, C_k,
    length, directions, channels, state, segments, blocks,
    p_dy, dy_b, dy_l, p_state, p_adjoint, p_total, p_y,
    HAS_ORDER: tl.constexpr, SOFTPLUS: tl.constexpr, OUTPUT: tl.constexpr, ADJOINT: tl.constexpr,
    SEGMENT: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """With OUTPUT: C . h of each direction (b, l, k, c), segments starting from `p_state`. Without:
    what each segment ends in from a zero state, the sum of its steps and, with ADJOINT, the
    gradient that its own outputs send to the state before it."""
    i_b, i_k, i_s, i_c = _own_place(segments, directions, blocks)
    c, n = i_c * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_N)
    m_c, m_n = c < channels, n < state
    m_nc = m_n[:, None] & m_c[None, :]
    p_u += i_b * u_b + c
    p_dy += i_b * dy_b + c
    p_delta += i_b * delta_b + i_k * delta_k + c
    p_B += i_b * B_b + i_k * B_k + n
    p_C += i_b * C_b + i_k * C_k + n
    p_order += i_k * length
    p_y += (i_b * length * directions + i_k) * channels + c
    slot = (i_b * directions + i_k) * segments + i_s
    o_nc = n[:, None] * channels + c[None, :]
    p_state += slot * state * channels + o_nc
    b_A = tl.load(p_A + i_k * state * channels + o_nc, mask=m_nc, other=0.0)
    b_bias = tl.load(p_bias + i_k * channels + c, mask=m_c, other=0.0)

    b_h = tl.zeros([BLOCK_N, BLOCK_C], dtype=b_A.dtype)
    if OUTPUT:
        b_h = tl.load(p_state, mask=m_nc, other=0.0)
    b_mu = tl.zeros([BLOCK_N, BLOCK_C], dtype=b_A.dtype)
    b_decays = tl.full([BLOCK_N, BLOCK_C], 1.0, dtype=b_A.dtype)
    b_total = tl.zeros([BLOCK_C], dtype=b_A.dtype)
    start = i_s * SEGMENT
    end = tl.minimum(start + SEGMENT, length)
    for i in range(end - start):
        i_l, _b_x, b_dt, b_u, b_B = _step(
            p_u, p_delta, p_B, p_order, start + i, end, u_l, delta_l, B_l, b_bias, m_c, m_n,
            HAS_ORDER, SOFTPLUS,
        )  # fmt: skip
        b_decay = tl.exp2(b_dt[None, :] * b_A)
        b_h = b_decay * b_h + b_B[:, None] * (b_dt * b_u)[None, :]
        b_total += b_dt
        if OUTPUT or ADJOINT:
            b_C = tl.load(p_C + i_l * C_l, mask=m_n, other=0.0).to(b_A.dtype)
        if OUTPUT:
            b_y = tl.sum(b_C[:, None] * b_h, axis=0)
            tl.store(p_y + i_l * directions * channels, b_y, mask=m_c)
        if ADJOINT:
            b_dy = tl.load(p_dy + i_l * dy_l, mask=m_c, other=0.0).to(b_A.dtype)
            b_decays *= b_decay
            b_mu += b_decays * (b_C[:, None] * b_dy[None, :])
    if not OUTPUT:
        tl.store(p_state, b_h, mask=m_nc)
        tl.store(p_total + slot * channels + c, b_total, mask=m_c)
    if ADJOINT:
        tl.store(p_adjoint + slot * state * channels + o_nc, b_mu, mask=m_nc)


@triton.jit
def join_segments(
    p_state, p_total, p_A, p_carry, directions, channels, state, segments, blocks,
    REVERSE: tl.constexpr, SPAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Replaces what each segment ends in from zero by what it starts from; `p_carry` holds what the
    first one starts from and receives what the last one ends in. REVERSE walks from the end."""
    pid = tl.program_id(0).to(tl.int64)
    i_bk = pid // blocks
    e = (pid % blocks) * BLOCK + tl.arange(0, BLOCK)  # elements of the state, (n, c) flattened
    r = tl.arange(0, SPAN)
    size = state * channels
    m_e = e < size
    b_A = tl.load(p_A + (i_bk % directions) * size + e, mask=m_e, other=0.0)
    p_carry += i_bk * size + e
    b_carry = tl.load(p_carry, mask=m_e, other=0.0)
    for i in range(tl.cdiv(segments, SPAN)):
        walked = i * SPAN + r
        m_re = (walked < segments)[:, None] & m_e[None, :]
        i_s = walked
        if REVERSE:
            i_s = segments - 1 - walked
        slot = (i_bk * segments + i_s)[:, None]
        b_own = tl.load(p_state + slot * size + e[None, :], mask=m_re, other=0.0)
        b_total = tl.load(p_total + slot * channels + e[None, :] % channels, mask=m_re, other=0.0)
        b_decay = tl.where(m_re, tl.exp2(b_total * b_A[None, :]), 1.0)
        b_start = tl.zeros([SPAN, BLOCK], dtype=b_A.dtype)
        for j in tl.static_range(SPAN):
            row = (r == j)[:, None]
            b_start = tl.where(row, b_carry[None, :], b_start)
            b_decay_j = tl.sum(tl.where(row, b_decay, 0.0), axis=0)
            b_own_j = tl.sum(tl.where(row, b_own, 0.0), axis=0)
            # growing states may overflow the decay of a whole segment; a zero stays a zero
            b_carry = tl.where(b_carry == 0.0, 0.0, b_decay_j * b_carry) + b_own_j
        tl.store(p_state + slot * size + e[None, :], b_start, mask=m_re)
    tl.store(p_carry, b_carry, mask=m_e)


@triton.jit
def _step_back(
    b_mu, b_dA, b_dbias, b_h, b_A, b_bias, p_u, p_delta, p_B, p_C, p_dy, p_order,
    p_du, p_ddelta, p_dB, p_dC, t, end, u_l, delta_l, B_l, C_l, dy_l, row_c, row_n, m_c, m_n,
    HAS_ORDER: tl.constexpr, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """Gradients of step t, which starts from state `b_h`; `b_mu` comes from the steps after it and
    leaves for those before it. Past the end nothing changes and nothing is written."""
    i_l, b_x, b_dt, b_u, b_B = _step(
        p_u, p_delta, p_B, p_order, t, end, u_l, delta_l, B_l, b_bias, m_c, m_n,
        HAS_ORDER, SOFTPLUS,
    )  # fmt: skip
    m_t = t < end
    m_c, m_n = tl.where(m_t, m_c, False), tl.where(m_t, m_n, False)
    b_C = tl.load(p_C + i_l * C_l, mask=m_n, other=0.0).to(b_A.dtype)
    b_dy = tl.load(p_dy + i_l * dy_l, mask=m_c, other=0.0).to(b_A.dtype)
    b_decay = tl.exp2(b_dt[None, :] * b_A)
    b_after = b_decay * b_h + b_B[:, None] * (b_dt * b_u)[None, :]

    b_dh = b_mu + b_C[:, None] * b_dy[None, :]
    tl.store(p_dC + i_l * row_n, tl.sum(b_after * b_dy[None, :], axis=1), mask=m_n)
    tl.store(p_dB + i_l * row_n, tl.sum(b_dh * (b_dt * b_u)[None, :], axis=1), mask=m_n)
    b_dinput = tl.sum(b_dh * b_B[:, None], axis=0)  # gradient of dt u
    tl.store(p_du + i_l * row_c, b_dinput * b_dt, mask=m_c)

    b_mu = b_decay * b_dh
    b_dexponent = b_mu * b_h  # gradient of dt A
    b_dA += b_dexponent * b_dt[None, :]
    b_ddelta = tl.sum(b_dexponent * b_A, axis=0) * LN2 + b_dinput * b_u
    if SOFTPLUS:
        b_ddelta *= _softplus_slope(b_x)
    tl.store(p_ddelta + i_l * row_c, b_ddelta, mask=m_c)
    b_dbias += tl.where(m_c, b_ddelta, 0.0)
    return b_mu, b_dA, b_dbias


@triton.jit
def backward_segments(
    p_u, p_delta, p_B, p_C, p_A, p_bias, p_order,
    u_b, u_l, delta_b, delta_l, delta_k, B_b, B_l, B_k, C_b, C_l, C_k,
    length, directions, channels, state, segments, blocks,
    p_dy, dy_b, dy_l, p_state, p_adjoint, p_total, p_du, p_ddelta, p_dB, p_dC, part_n,
    HAS_ORDER: tl.constexpr, SOFTPLUS: tl.constexpr, SEGMENT: tl.constexpr, RUN: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradients of each segment from the state before it (`p_state`) and the gradient behind it
    (`p_adjoint`), whose places then take the segment's dA and (`p_total`) its gradient of the bias.

    du and ddelta are (b, l, k, c); dB and dC are (channel block, b, l, k, n)."""
    i_b, i_k, i_s, i_c = _own_place(segments, directions, blocks)
    c, n = i_c * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_N)
    m_c, m_n = c < channels, n < state
    m_nc = m_n[:, None] & m_c[None, :]
    row_c, row_n = directions * channels, directions * state
    own_c = i_b * length * row_c + i_k * channels + c
    own_n = i_c * part_n + i_b * length * row_n + i_k * state + n
    slot = (i_b * directions + i_k) * segments + i_s
    o_nc = n[:, None] * channels + c[None, :]
    p_u += i_b * u_b + c
    p_dy += i_b * dy_b + c
    p_delta += i_b * delta_b + i_k * delta_k + c
    p_B += i_b * B_b + i_k * B_k + n
    p_C += i_b * C_b + i_k * C_k + n
    p_order += i_k * length
    p_state += slot * state * channels + o_nc
    p_adjoint += slot * state * channels + o_nc
    p_du += own_c
    p_ddelta += own_c
    p_dB += own_n
    p_dC += own_n
    b_A = tl.load(p_A + i_k * state * channels + o_nc, mask=m_nc, other=0.0)
    b_bias = tl.load(p_bias + i_k * channels + c, mask=m_c, other=0.0)
    b_mu = tl.load(p_adjoint, mask=m_nc, other=0.0)
    b_dA = tl.zeros([BLOCK_N, BLOCK_C], dtype=b_A.dtype)
    b_dbias = tl.zeros([BLOCK_C], dtype=b_A.dtype)
    start = i_s * SEGMENT
    end = tl.minimum(start + SEGMENT, length)
    runs = tl.cdiv(end - start, RUN)
    for i in range(runs):
        first = start + (runs - 1 - i) * RUN
        b_first = tl.load(p_state, mask=m_nc, other=0.0)
        for j in range(first - start):
            b_first = _next_state(
                b_first, b_A, b_bias, p_u, p_delta, p_B, p_order, start + j, end,
                u_l, delta_l, B_l, m_c, m_n, HAS_ORDER, SOFTPLUS,
            )  # fmt: skip
        fours = tl.cdiv(tl.minimum(first + RUN, end) - first, 4)
        for q in range(fours):
            t = first + (fours - 1 - q) * 4
            b_h0 = b_first
            for j in range(t - first):
                b_h0 = _next_state(
                    b_h0, b_A, b_bias, p_u, p_delta, p_B, p_order, first + j, end,
                    u_l, delta_l, B_l, m_c, m_n, HAS_ORDER, SOFTPLUS,
                )  # fmt: skip
            b_h1 = _next_state(
                b_h0, b_A, b_bias, p_u, p_delta, p_B, p_order, t, end,
                u_l, delta_l, B_l, m_c, m_n, HAS_ORDER, SOFTPLUS,
            )  # fmt: skip
            b_h2 = _next_state(
                b_h1, b_A, b_bias, p_u, p_delta, p_B, p_order, t + 1, end,
                u_l, delta_l, B_l, m_c, m_n, HAS_ORDER, SOFTPLUS,
            )  # fmt: skip
            b_h3 = _next_state(
                b_h2, b_A, b_bias, p_u, p_delta, p_B, p_order, t + 2, end,
                u_l, delta_l, B_l, m_c, m_n, HAS_ORDER, SOFTPLUS,
            )  # fmt: skip
            for back in tl.static_range(4):
                b_before = b_h3
                if back == 1:
                    b_before = b_h2
                elif back == 2:
                    b_before = b_h1
                elif back == 3:
                    b_before = b_h0
                b_mu, b_dA, b_dbias = _step_back(
                    b_mu, b_dA, b_dbias, b_before, b_A, b_bias,
                    p_u, p_delta, p_B, p_C, p_dy, p_order, p_du, p_ddelta, p_dB, p_dC,
                    t + 3 - back, end, u_l, delta_l, B_l, C_l, dy_l, row_c, row_n, m_c, m_n,
                    HAS_ORDER, SOFTPLUS,
                )  # fmt: skip

    tl.debug_barrier()  # all threads have read p_adjoint, perhaps in another layout
    tl.store(p_adjoint, b_dA, mask=m_nc)
    tl.store(p_total + slot * channels + c, b_dbias, mask=m_c)
