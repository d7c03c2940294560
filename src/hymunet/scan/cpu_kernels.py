"""The kernels of the selective scan on a CPU, forward and backward, written for Numba.

A task is one image and one block of channels (as many as `lanes.py` holds in a value). It walks its
channels through all directions, reads the visiting order itself and adds to the output in place, so
nothing is gathered, permuted or merged; the state (d_state x lanes) stays in the L1 cache. The
backward keeps the state of every SEGMENT-th step and computes those between a second time.

A kernel takes one pointer, the shape that thread pools want: to a record of sizes, strides (in
elements) and addresses, `record_type`. Each thread calls it; a counter deals out the tasks, and a
second one each thread's piece of scratch memory.
"""

from typing import Any

import numpy as np
from numba import carray, njit

from hymunet.scan.lanes import (
    fma,
    lane_count,
    load,
    log_one_plus,
    ones,
    pointer_at,
    positive_and_minus_abs,
    power_minus_one,
    power_of_two,
    splat,
    store,
    take_one,
    times_log2_e,
    two_totals,
    zeros,
)

# steps between two kept states: what the backward stores of them (2 x 16 x d_state lanes, 32 KiB at
# d_state 16) fits the L1 cache
SEGMENT = 16


def record_type(dtype: np.dtype) -> np.dtype:
    """What a kernel is told; `counters`, `scratch` and the names of tensors are addresses."""
    numbers = ("tasks", "batch", "length", "directions", "channels", "state", "softplus", "group")
    inputs = ("u", "delta", "B", "C", "order", "dy", "exponents", "A", "D", "bias", "dlast")
    outputs = ("y", "last", "du", "ddelta", "dA", "dB", "dC", "dD", "dbias")
    fields: list[Any] = [(name, np.int64) for name in (*numbers, *inputs, *outputs)]
    fields += [(name, np.int64) for name in ("counters", "scratch", "scratch_size")]
    strides = {"u_at": 2, "dy_at": 2, "delta_at": 3, "B_at": 3, "C_at": 3}
    fields += [(name, np.int64, (count,)) for name, count in strides.items()]
    # a number of the tensors' type, from which the kernel knows what the addresses hold
    return np.dtype([*fields, ("order_k", np.int64), ("like", dtype)], align=True)


@njit(inline="always")
def softplus(x):  # type: ignore[no-untyped-def]
    """log(1 + exp(x)) without overflow: max(x, 0) + log(1 + exp(-|x|))."""
    positive, negative = positive_and_minus_abs(x)
    scale, rest = power_of_two(times_log2_e(negative))
    return positive + log_one_plus(fma(scale, power_minus_one(rest), scale))


@njit(inline="always")
def step_size(delta, offset, bias, softplus_asked):  # type: ignore[no-untyped-def]
    """dt of one token and direction."""
    dt = load(delta, offset) + bias
    if softplus_asked:
        dt = softplus(dt)
    return dt


@njit(inline="always")
def advance(h, exponent, x):  # type: ignore[no-untyped-def]
    """2^exponent h + x, with 2^exponent as s (1 + w), s a power of two.

    s h is exact and w is accurate relative to itself, so a decay that hardly differs from 1 is not
    rounded to the precision of 1, which would add up over a long scan.
    """
    scale, rest = power_of_two(exponent)
    scaled = scale * h
    return scaled + fma(power_minus_one(rest), scaled, x)


@njit(inline="always")
def copy(scratch, source, target, count, width):  # type: ignore[no-untyped-def]
    """`count` lanes from one place of the scratch memory to another."""
    for n in range(count):
        store(scratch, target + n * width, load(scratch, source + n * width))


def forward(pointer):  # type: ignore[no-untyped-def]
    """y (batch, length, channels) and the last states (batch, directions, state, channels)."""
    p = carray(pointer, 1)[0]
    like, counters = p.like, pointer_at(p.tasks, p.counters)
    length, directions, channels, state = p.length, p.directions, p.channels, p.state
    softplus_asked, width = p.softplus != 0, lane_count(like)
    order, order_k = pointer_at(length, p.order), p.order_k
    u, delta, B, C = (
        pointer_at(like, p.u),
        pointer_at(like, p.delta),
        pointer_at(like, p.B),
        pointer_at(like, p.C),
    )
    exponents, D, bias = (
        pointer_at(like, p.exponents),
        pointer_at(like, p.D),
        pointer_at(like, p.bias),
    )
    y, last = pointer_at(like, p.y), pointer_at(like, p.last)
    u_i, delta_i, B_i, C_i = p.u_at[1], p.delta_at[1], p.B_at[1], p.C_at[1]
    blocks = channels // width
    # scratch: h
    h = pointer_at(like, p.scratch + take_one(counters, 1) * p.scratch_size)
    while True:
        task = take_one(counters, 0)
        if task >= p.tasks:
            return
        b, c = task // blocks, task % blocks * width
        skip = load(D, c)
        u_b = b * p.u_at[0] + c
        for k in range(directions):
            path, rates = k * order_k, k * state * channels + c
            dt_bias = load(bias, k * channels + c)
            delta_bk = b * p.delta_at[0] + k * p.delta_at[2] + c
            B_bk, C_bk = b * p.B_at[0] + k * p.B_at[2], b * p.C_at[0] + k * p.C_at[2]
            for n in range(state):
                store(h, n * width, zeros(like))
            i = order[path]
            dt = step_size(delta, delta_bk + i * delta_i, dt_bias, softplus_asked)
            for t in range(length):
                # the next step's loads and softplus have time while this step's states are computed
                next_i = order[path + min(t + 1, length - 1)]
                next_dt = step_size(delta, delta_bk + next_i * delta_i, dt_bias, softplus_asked)
                token = load(u, u_b + i * u_i)
                x = dt * token
                into, out = B_bk + i * B_i, C_bk + i * C_i
                total = zeros(like)
                for n in range(state):
                    exponent = dt * load(exponents, rates + n * channels)
                    now = advance(load(h, n * width), exponent, x * splat(B[into + n]))
                    store(h, n * width, now)
                    total = fma(splat(C[out + n]), now, total)
                place = (b * length + i) * channels + c
                if k == 0:
                    store(y, place, fma(skip, token, total))
                else:
                    store(y, place, total + load(y, place))
                i, dt = next_i, next_dt
            for n in range(state):
                at = ((b * directions + k) * state + n) * channels + c
                store(last, at, load(h, n * width))


def backward(pointer):  # type: ignore[no-untyped-def]
    """The gradient of each input. dA, dbias and dD are a value an image, dB and dC a value a group
    of `group` channels; their sums are taken outside, so that no two tasks share a number.

    With dh[t] the gradient of the state after step t and p = decay h[t-1] what is left of it:
        dh[t] = C dy + decay[t+1] dh[t+1]
        dC = sum over channels of dy h,  dB = sum over channels of dh dt u
        ddt = sum over the state of dh (A p + u B),  du = sum over the state of dh dt B
        dA = sum over t of dh p dt
    """
    p = carray(pointer, 1)[0]
    like, counters = p.like, pointer_at(p.tasks, p.counters)
    batch, length, directions, channels, state = (
        p.batch,
        p.length,
        p.directions,
        p.channels,
        p.state,
    )
    softplus_asked, width, group = p.softplus != 0, lane_count(like), p.group
    order, order_k = pointer_at(length, p.order), p.order_k
    u, delta, B, C = (
        pointer_at(like, p.u),
        pointer_at(like, p.delta),
        pointer_at(like, p.B),
        pointer_at(like, p.C),
    )
    exponents, D, bias = (
        pointer_at(like, p.exponents),
        pointer_at(like, p.D),
        pointer_at(like, p.bias),
    )
    A, dy, dlast = pointer_at(like, p.A), pointer_at(like, p.dy), pointer_at(like, p.dlast)
    du, ddelta, dA = pointer_at(like, p.du), pointer_at(like, p.ddelta), pointer_at(like, p.dA)
    dB, dC = pointer_at(like, p.dB), pointer_at(like, p.dC)
    dD, dbias = pointer_at(like, p.dD), pointer_at(like, p.dbias)
    u_i, dy_i, delta_i, B_i, C_i = p.u_at[1], p.dy_at[1], p.delta_at[1], p.B_at[1], p.C_at[1]
    groups, segments = -(-channels // group), -(-length // SEGMENT)
    lanes = state * width
    # scratch, as `backward_scratch` counts it
    scratch = pointer_at(like, p.scratch + take_one(counters, 1) * p.scratch_size)
    h, dh, drates = 0, lanes, 2 * lanes
    decayed, lost = 3 * lanes, (3 + SEGMENT) * lanes
    kept = (3 + 2 * SEGMENT) * lanes
    steps = kept + segments * lanes
    while True:
        task = take_one(counters, 0)
        if task >= p.tasks:
            return
        b, g = task // groups, task % groups
        for c in range(g * group, min((g + 1) * group, channels), width):
            skip, dskip = load(D, c), zeros(like)
            u_b, dy_b = b * p.u_at[0] + c, b * p.dy_at[0] + c
            for k in range(directions):
                path, rates = k * order_k, k * state * channels + c
                dt_bias, ddt_bias = load(bias, k * channels + c), zeros(like)
                delta_bk = b * p.delta_at[0] + k * p.delta_at[2] + c
                B_bk, C_bk = b * p.B_at[0] + k * p.B_at[2], b * p.C_at[0] + k * p.C_at[2]
                states = (b * directions + k) * state * channels + c
                for n in range(state):
                    store(scratch, h + n * width, zeros(like))
                    store(scratch, drates + n * width, zeros(like))
                    store(scratch, dh + n * width, load(dlast, states + n * channels))
                copy(scratch, h, kept, state, width)
                i = order[path]
                dt = step_size(delta, delta_bk + i * delta_i, dt_bias, softplus_asked)
                for t in range((segments - 1) * SEGMENT):
                    next_i = order[path + t + 1]
                    next_dt = step_size(delta, delta_bk + next_i * delta_i, dt_bias, softplus_asked)
                    x = dt * load(u, u_b + i * u_i)
                    into = B_bk + i * B_i
                    for n in range(state):
                        exponent = dt * load(exponents, rates + n * channels)
                        before = load(scratch, h + n * width)
                        now = advance(before, exponent, x * splat(B[into + n]))
                        store(scratch, h + n * width, now)
                    if t % SEGMENT == SEGMENT - 1:
                        copy(scratch, h, kept + (t // SEGMENT + 1) * lanes, state, width)
                    i, dt = next_i, next_dt
                for s in range(segments - 1, -1, -1):
                    first = s * SEGMENT
                    count = min(SEGMENT, length - first)
                    copy(scratch, kept + s * lanes, h, state, width)
                    i = order[path + first]
                    dt = step_size(delta, delta_bk + i * delta_i, dt_bias, softplus_asked)
                    for j in range(count):
                        next_i = order[path + min(first + j + 1, length - 1)]
                        next_at = delta_bk + next_i * delta_i
                        next_dt = step_size(delta, next_at, dt_bias, softplus_asked)
                        store(scratch, steps + j * width, dt)
                        x = dt * load(u, u_b + i * u_i)
                        into = B_bk + i * B_i
                        for n in range(state):
                            at = j * lanes + n * width
                            scale, rest = power_of_two(dt * load(exponents, rates + n * channels))
                            w = power_minus_one(rest)
                            scaled = scale * load(scratch, h + n * width)
                            left = fma(w, scaled, scaled)
                            store(scratch, decayed + at, left)
                            # decay - 1, for the reason that `advance` gives
                            store(scratch, lost + at, fma(scale, w, scale - ones(like)))
                            store(scratch, h + n * width, fma(x, splat(B[into + n]), left))
                        i, dt = next_i, next_dt
                    for j in range(count - 1, -1, -1):
                        i = order[path + first + j]
                        dt, token = load(scratch, steps + j * width), load(u, u_b + i * u_i)
                        dout = load(dy, dy_b + i * dy_i)
                        x, dx, ddt = dt * token, zeros(like), zeros(like)
                        into, out = B_bk + i * B_i, C_bk + i * C_i
                        partial = (((g * batch + b) * length + i) * directions + k) * state
                        for n in range(state):
                            at = j * lanes + n * width
                            left, B_n = load(scratch, decayed + at), splat(B[into + n])
                            dstate = fma(splat(C[out + n]), dout, load(scratch, dh + n * width))
                            dx = fma(dstate, B_n, dx)
                            q = dstate * left
                            ddt = fma(q, load(A, rates + n * channels), ddt)
                            rate = load(scratch, drates + n * width)
                            store(scratch, drates + n * width, fma(q, dt, rate))
                            before = fma(load(scratch, lost + at), dstate, dstate)
                            store(scratch, dh + n * width, before)
                            dB_n, dC_n = two_totals(dstate * x, dout * fma(x, B_n, left))
                            if c == g * group:
                                dB[partial + n] = dB_n
                                dC[partial + n] = dC_n
                            else:
                                dB[partial + n] += dB_n
                                dC[partial + n] += dC_n
                        ddt = fma(dx, token, ddt)
                        if softplus_asked:  # its derivative is 1 - exp(-dt)
                            scale, rest = power_of_two(times_log2_e(zeros(like) - dt))
                            decay = fma(scale, power_minus_one(rest), scale)
                            ddt = ddt - decay * ddt
                        at = ((b * length + i) * directions + k) * channels + c
                        store(ddelta, at, ddt)
                        ddt_bias = ddt_bias + ddt
                        place = (b * length + i) * channels + c
                        if k == 0:
                            dskip = fma(dout, token, dskip)
                            store(du, place, fma(dx, dt, skip * dout))
                        else:
                            store(du, place, fma(dx, dt, load(du, place)))
                store(dbias, (b * directions + k) * channels + c, ddt_bias)
                for n in range(state):
                    store(dA, states + n * channels, load(scratch, drates + n * width))
            store(dD, b * channels + c, dskip)
