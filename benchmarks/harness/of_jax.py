# SPDX-License-Identifier: MIT
"""JAX: one jitted function of weights, state and input; a sequence is a product and a scan."""

from __future__ import annotations

from typing import Any

import numpy as np

from .case import Arrays, Case
from .turns import Contestant


def of_jax(case: Case, weights: Arrays, inputs: np.ndarray, jax: Any) -> Contestant:
    jnp, lax, n = jax.numpy, jax.lax, case.hidden
    sigmoid, tanh = jax.nn.sigmoid, jnp.tanh
    wx, wh = (jnp.asarray(weights[f"weight_{k}_l0"].T.copy()) for k in ("ih", "hh"))
    bx, bh = (jnp.asarray(weights[f"bias_{k}_l0"]) for k in ("ih", "hh"))
    if case.kind != "GRU":
        bx = bx + bh

    def finish(z: Any, state: Any, wh: Any, bh: Any) -> Any:
        h = state[0]
        u = h @ wh
        if case.kind == "RNN":
            return (tanh(z + u),)
        if case.kind == "GRU":
            u = u + bh
            r, update = (sigmoid(z[:, k * n : k * n + n] + u[:, k * n : k * n + n]) for k in (0, 1))
            new = tanh(z[:, 2 * n :] + r * u[:, 2 * n :])
            return (new + update * (h - new),)
        i, f, g, o = jnp.split(z + u, 4, axis=1)
        c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
        return (sigmoid(o) * tanh(c), c)

    @jax.jit
    def one(x: Any, state: Any, wx: Any, wh: Any, bx: Any, bh: Any) -> Any:
        return finish(x @ wx + bx, state, wh, bh)

    @jax.jit
    def many(x: Any, state: Any, wx: Any, wh: Any, bx: Any, bh: Any) -> Any:
        def body(state: Any, z: Any) -> Any:
            state = finish(z, state, wh, bh)
            return state, state[0]

        return lax.scan(body, state, x @ wx + bx)[1]

    state = result = tuple(jnp.zeros((case.batch, n), jnp.float32) for _ in range(case.states))

    def step(frame: Any) -> None:
        nonlocal state
        state = one(frame, state, wx, wh, bx, bh)
        state[0].block_until_ready()

    def whole(frame: Any) -> None:
        nonlocal result
        result = many(frame, state, wx, wh, bx, bh).block_until_ready()

    if case.mode == "sequence":
        return Contestant(
            "JAX", [jnp.asarray(x) for x in inputs], whole, lambda: np.asarray(result).reshape(-1)
        )
    frames = [jnp.asarray(x) for x in inputs[:, 0]]
    return Contestant("JAX", frames, step, lambda: np.asarray(state[0]).reshape(-1))
