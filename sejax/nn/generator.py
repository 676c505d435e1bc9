"""A generator of random numbers for training steps: hashes of numbers with a key.

The hash is lowbias32 (Wellons, Hash prospector, 2018), with the second word of the key mixed in between its rounds. Of
threefry, the generator of jax.random, there is ten times the arithmetic: a quarter of a training step on a CPU is then
dropout. And each key that it derives is a loop to compile; a step of the default model derives 42.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Integer, UInt32

Words = UInt32[Array, " 2"]


def _hash(number: Integer[Array, "..."], words: Words) -> UInt32[Array, "..."]:
    h = number.astype(jnp.uint32) ^ words[0]
    h = (h ^ (h >> 16)) * jnp.uint32(0x21F0AAAD)
    h = (h ^ (h >> 15) ^ words[1]) * jnp.uint32(0xD35A2D97)
    return h ^ (h >> 15)


def _fold_in(words: Words, number: Any) -> Words:
    second = words[::-1] ^ jnp.uint32(0x9E3779B9)  # another key for the second word
    return jnp.stack([_hash(number, words), _hash(number, second)])


def _seed(seed: Integer[Array, ""]) -> Words:
    return _fold_in(jnp.zeros(2, jnp.uint32), seed)


def _split(words: Words, shape: tuple[int, ...]) -> UInt32[Array, "... 2"]:
    numbers = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    return jax.vmap(lambda n: _fold_in(words, n))(numbers).reshape(*shape, 2)


def _bits(words: Words, bit_width: int, shape: tuple[int, ...]) -> Array:
    if bit_width > 32:
        raise NotImplementedError("64 random bits: sejax computes in 32 bits")
    bits = _hash(lax.iota(jnp.uint32, math.prod(shape)), words)
    return (bits >> (32 - bit_width)).astype(f"uint{bit_width}").reshape(shape)


HASH = define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name="lowbias32", tag="hash"
)
"""The implementation, for `jax.random.key(seed, impl=HASH)`."""
