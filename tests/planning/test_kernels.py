"""The work of a traced function, against closed forms and against what XLA counts."""

import jax
import jax.numpy as jnp
import pytest

from sejax.nn.layers import LSTM
from sejax.planning.kernels import work_of

F32 = 4


def shape(*sizes: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def test_a_dense_layer_is_one_kernel():
    work = work_of(lambda x, w, b: jax.nn.relu(x @ w + b), shape(32, 64), shape(64, 128), shape(1, 128))
    (kernel,) = work.kernels
    assert kernel.products == 2 * 32 * 64 * 128
    assert kernel.operations == 2 * 32 * 128  # the bias and the maximum
    assert kernel.bytes == F32 * (32 * 64 + 64 * 128 + 128 + 2 * 32 * 128)  # the product is written too
    assert work.temporary == F32 * 32 * 128  # the product; the result is none


def test_what_no_result_depends_on_is_not_counted():
    def loss(w, x):
        return jnp.square(x @ w[0]).sum()

    weights = [shape(64, 64)]
    assert work_of(loss, weights, shape(32, 64)).products == 2 * 32 * 64 * 64
    # The input needs no gradient: one product forward, one for the weights.
    assert work_of(jax.grad(loss), weights, shape(32, 64)).products == 2 * 2 * 32 * 64 * 64


def test_arithmetic_fuses_with_what_reads_it():
    work = work_of(lambda x: jnp.exp(x * 2.0 + 1.0).sum(axis=1), shape(100, 50))
    (kernel,) = work.kernels
    assert kernel.bytes == F32 * (100 * 50 + 100)
    assert kernel.operations >= 12 * 100 * 50


def test_a_scan_runs_its_body_as_often_as_it_has_turns():
    def unrolled(x, w):
        for _ in range(7):
            x = jnp.tanh(x @ w)
        return x

    def scanned(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=7)[0]

    arguments = shape(16, 32), shape(32, 32)
    one, other = work_of(unrolled, *arguments), work_of(scanned, *arguments)
    assert one.products == other.products == 7 * 2 * 16 * 32 * 32
    body = [kernel for kernel in other.kernels if kernel.name != "turn"]
    assert one.launches == sum(kernel.times for kernel in body) == 7
    assert one.bytes == sum(kernel.times * kernel.bytes for kernel in body)
    assert {kernel.times % 7 for kernel in other.kernels} == {0}


def test_products_are_those_that_xla_counts_of_an_unrolled_program():
    """XLA counts the arithmetic too, which is a few percent here."""

    def loss(w, x):
        for _ in range(3):
            x = jnp.maximum(jnp.einsum("btf,fg->btg", x, w), 0.0)
        scores = jnp.einsum("btf,bsf->bts", x, x)
        return (scores * scores).sum()

    arguments = shape(128, 128), shape(4, 96, 128)
    counted = jax.jit(jax.grad(loss)).lower(*arguments).cost_analysis()["flops"]
    assert work_of(jax.grad(loss), *arguments).products == pytest.approx(counted, rel=0.03)


def test_convolution():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))

    assert work_of(convolve, shape(4, 100, 16), shape(5, 16, 24)).products == 2 * 4 * 50 * 24 * 5 * 16


def test_part_of_an_array_moves_that_part_alone():
    big, rows = shape(10_000, 64), shape(32, dtype=jnp.int32)
    assert work_of(lambda x, rows: x[rows], big, rows).bytes < 10 * F32 * 32 * 64
    assert (
        work_of(lambda x, new: jax.lax.dynamic_update_slice(x, new, (3, 0)), big, shape(8, 64)).bytes
        == 2 * F32 * 8 * 64
    )


def test_attention_weights_are_alive_until_the_backward_pass_reads_them():
    def loss(x):
        weight = jax.nn.softmax(jnp.einsum("tf,sf->ts", x, x))
        return jnp.einsum("ts,sf->tf", weight, x).sum()

    def temporary(time: int) -> int:
        return work_of(jax.grad(loss), shape(time, 8)).temporary

    assert F32 * 512**2 < temporary(512) < 4 * F32 * 512**2
    assert temporary(1024) == pytest.approx(4 * temporary(512), rel=0.1)


def test_the_lstm_has_the_kernels_that_a_compiler_makes_of_it():
    """Compiled for an H200, two turns, forward and backward, are 37 kernels (experiments/speed)."""
    model, x, mask = LSTM(32), shape(32, 118, 64), shape(32, 118, dtype=jnp.bool_)
    params = jax.eval_shape(model.init, jax.random.key(0), x, mask)

    def loss(params, x, mask):
        return model.apply(params, x, mask).sum()

    work = work_of(jax.grad(loss), params, x, mask)
    in_loops = sum(kernel.times for kernel in work.kernels if kernel.times >= 118)
    assert in_loops / 118 == pytest.approx(37 / 2, rel=0.15)
