"""JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy

from record import Info, Near
from registry import Skip, check


def numbers(*shape, dtype="float32"):
    """Normal numbers, drawn on the CPU."""
    return jnp.asarray(numpy.random.standard_normal(shape).astype(dtype))


@check
def jax_compiled():
    @jax.jit
    def work(one, other):
        return jnp.tanh(one) * other.sum(-1, keepdims=True), jnp.argmax(one, -1), jax.nn.softmax(one @ other.T)

    one, other = numbers(64, 32), numbers(64, 32)
    return {"results": [numpy.asarray(part) for part in work(one, other)]}


@check
def jax_gradients():
    def loss(weights, given):
        return jnp.mean((jnp.tanh(given @ weights[0]) @ weights[1]) ** 2)

    weights, given = (numbers(16, 32), numbers(32, 4)), numbers(20, 16)
    value, gradient = jax.jit(jax.value_and_grad(loss))(weights, given)
    hessian = jax.hessian(lambda given: jnp.sum(jnp.sin(given) ** 3))(numbers(10))
    return {"value": numpy.asarray(value), "gradient": [numpy.asarray(part) for part in gradient], "hessian": numpy.asarray(hessian)}


@check
def jax_products():
    found = {}
    for dtype in ("float32", "float16", "bfloat16"):
        one, other = numbers(128, 96).astype(dtype), numbers(96, 64).astype(dtype)
        # Which of several algorithms is taken is timed anew in each process, and float32 may be TF32 unless told.
        product = jnp.matmul(one, other, precision="highest")
        found[dtype] = Near(numpy.asarray(product.astype("float32")), {"float32": 1e-5}.get(dtype, 1e-2))
    found["batched"] = Near(numpy.asarray(jnp.einsum("bij,bjk->bik", numbers(8, 16, 24), numbers(8, 24, 8), precision="highest")), 1e-5)
    whole = jnp.matmul(jnp.arange(64, dtype="int8").reshape(8, 8), jnp.ones((8, 8), "int8"), preferred_element_type="int32")
    return found | {"integers": numpy.asarray(whole)}


@check
def jax_convolutions():
    image, kernel = numbers(2, 16, 16, 8), numbers(3, 3, 8, 16)

    @jax.jit
    def work(image, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=dimensions, precision="highest")

    gradient = jax.grad(lambda kernel: jnp.sum(work(image, kernel) ** 2))(kernel)
    return {"out": Near(numpy.asarray(work(image, kernel)), 1e-4), "gradient": Near(numpy.asarray(gradient), 1e-4)}


@check
def jax_loops():
    """Control flow on the device."""

    def step(state, given):
        state = 0.9 * state + given
        return state, state.sum()

    last, sums = jax.jit(lambda given: jax.lax.scan(step, jnp.zeros(8), given))(numbers(50, 8))
    steps = jax.jit(lambda given: jax.lax.while_loop(lambda pair: pair[0] < 100, lambda pair: (pair[0] * 1.5, pair[1] + 1), (given, 0)))
    chosen = jax.jit(lambda given: jax.lax.cond(given > 0, jnp.sin, jnp.cos, given))
    return {"last": numpy.asarray(last), "sums": numpy.asarray(sums), "steps": int(steps(1.0)[1]), "chosen": float(chosen(-0.5))}


@check
def jax_solvers():
    matrix = numbers(40, 40)
    symmetric = matrix @ matrix.T + 40 * jnp.eye(40)
    parts = {
        "cholesky": jnp.linalg.cholesky(symmetric),
        "solved": jnp.linalg.solve(symmetric, numbers(40, 2)),
        "singular values": jnp.linalg.svd(matrix, compute_uv=False),
        "eigenvalues": jnp.linalg.eigvalsh(symmetric),
        "r": jnp.abs(jnp.linalg.qr(matrix)[1]),
        "triangular": jax.scipy.linalg.solve_triangular(jnp.tril(symmetric), numbers(40), lower=True),
    }
    return {name: Near(numpy.asarray(part), 1e-4) for name, part in parts.items()}


@check
def jax_fft():
    given = numbers(4, 120)
    return {"real": numpy.asarray(jnp.fft.rfft(given)), "two": numpy.asarray(jnp.abs(jnp.fft.fft2(numbers(24, 36))))}


@check
def jax_sorting_and_random():
    key = jax.random.key(3)
    given = jax.random.permutation(key, 10_000)
    return {
        "sorted": numpy.asarray(jnp.sort(given)[::100]),
        "order": numpy.asarray(jnp.argsort(given)[::100]),
        "largest": numpy.asarray(jax.lax.top_k(given.astype(float), 10)[0]),
        "normal": numpy.asarray(jax.random.normal(key, (500,))),
        "chosen": numpy.asarray(jax.random.categorical(key, jnp.zeros((100, 9)))),
        "scan": numpy.asarray(jnp.cumsum(given)[::100]),
        "added": numpy.asarray(jnp.zeros(50).at[given % 50].add(1.0)),
    }


@check
def jax_mapped():
    return {"distances": numpy.asarray(jax.jit(jax.vmap(lambda one: jax.vmap(lambda other: jnp.linalg.norm(one - other))(given)))(given))
            for given in [numbers(20, 5)]}  # fmt: skip


@check
def jax_shards():
    """A mesh, of however many devices there are, and collectives on it."""
    mesh = jax.sharding.Mesh(numpy.array(jax.devices()[:1]), ("x",))
    spec = jax.sharding.PartitionSpec("x")
    given = jax.device_put(numbers(16, 8), jax.sharding.NamedSharding(mesh, spec))
    summed = jax.shard_map(lambda part: jax.lax.psum(part.sum(0), "x"), mesh=mesh, in_specs=spec, out_specs=jax.sharding.PartitionSpec())
    return {"summed": numpy.asarray(jax.jit(summed)(given)), "devices": len(given.devices())}


@check
def jax_training():
    def loss(weights, given, wanted):
        hidden = jax.nn.relu(given @ weights["first"])
        return jnp.mean((hidden @ weights["second"] - wanted) ** 2)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(weights, given, wanted):
        value, gradient = jax.value_and_grad(loss)(weights, given, wanted)
        return jax.tree.map(lambda weight, part: weight - 0.01 * part, weights, gradient), value

    weights = {"first": numbers(8, 32), "second": numbers(32, 2)}
    given, wanted = numbers(64, 8), numbers(64, 2)
    losses = []
    for _ in range(10):
        weights, value = step(weights, given, wanted)
        losses.append(float(value))
    return {"losses": Near(numpy.asarray(losses), 5e-3)}  # products in TF32, of an algorithm that is chosen by time


@check
def jax_callbacks():
    """The host is called from the middle of a program."""
    shape = jax.ShapeDtypeStruct((10,), "float32")
    work = jax.jit(lambda given: jax.pure_callback(lambda here: numpy.asarray(here) * 2, shape, given) + 1)
    return {"result": numpy.asarray(work(jnp.arange(10, dtype="float32")))}


@check
def jax_pallas():
    """A kernel in Python, through Triton."""
    from jax.experimental import pallas

    if jax.default_backend() == "cpu":
        raise Skip("needs a device")

    def add(one, other, out):
        out[...] = one[...] + other[...]

    call = pallas.pallas_call(add, out_shape=jax.ShapeDtypeStruct((128,), "float32"))
    return {"sum": numpy.asarray(call(numbers(128), numbers(128)))}


@check
def jax_device():
    device = jax.devices()[0]
    found = {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()}
    return found | {"memory": Info(device.memory_stats()), "client": Info(device.client.platform_version)}


@check
def jax_out_of_memory():
    try:
        jnp.zeros(1 << 40, "float32").block_until_ready()
        said = "no error"
    except Exception as error:
        said = "RESOURCE_EXHAUSTED" in str(error)
    return {"said": said, "after": float(jnp.ones(10).sum())}


@check
def jax_interchange():
    given = numbers(100)
    return {"dlpack": numpy.asarray(jnp.from_dlpack(given) + 1), "moved": numpy.asarray(jax.device_put(numpy.arange(1_000_000, dtype="float32")) * 2)}
