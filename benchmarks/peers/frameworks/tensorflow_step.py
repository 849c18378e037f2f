"""Training steps of TensorFlow: images NHWC, filters HWIO, matrices [inputs, outputs]."""

from typing import Any

import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

from benchmarks.peers.models import EPSILON, Layout, Net
from benchmarks.peers.worker import Task

LAYOUT = Layout(
    channels_last=True,
    filter_axes=(2, 3, 1, 0),
    depthwise_axes=(2, 3, 0, 1),
    transposed_matrices=True,
)


class TensorFlowOps:
    """`benchmarks.peers.models.Ops` in TensorFlow."""

    def conv(self, x: Any, w: Any, b: Any, stride: int, padding: int, groups: int) -> Any:
        kernel = int(w.shape[0])
        same = stride == 1 and 2 * padding == kernel - 1
        if padding and not same:
            x = tf.pad(x, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
        convolution = tf.nn.conv2d if groups == 1 else tf.nn.depthwise_conv2d
        y = convolution(x, w, [1, stride, stride, 1], "SAME" if same else "VALID")
        return tf.nn.bias_add(y, b)

    def max_pool(self, x: Any, kernel: int, stride: int, padding: int) -> Any:
        if padding:  # what is pooled has passed a ReLU
            x = tf.pad(x, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
        return tf.nn.max_pool2d(x, kernel, stride, "VALID")

    def global_avg_pool(self, x: Any) -> Any:
        return tf.reduce_mean(x, (1, 2))

    def flatten(self, x: Any) -> Any:
        return tf.reshape(x, (x.shape[0], -1))

    def linear(self, x: Any, w: Any, b: Any) -> Any:
        rows = tf.reshape(x, (-1, x.shape[-1]))
        y = tf.matmul(rows, w)
        if b is not None:
            y = tf.nn.bias_add(y, b)
        return tf.reshape(y, (*x.shape[:-1], w.shape[-1]))

    def relu(self, x: Any) -> Any:
        return tf.nn.relu(x)

    def relu6(self, x: Any) -> Any:
        return tf.nn.relu6(x)

    def gelu(self, x: Any) -> Any:
        return tf.nn.gelu(x, approximate=False)

    def silu(self, x: Any) -> Any:
        return x * tf.sigmoid(x)

    def tanh(self, x: Any) -> Any:
        return tf.tanh(x)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def mul(self, a: Any, b: Any) -> Any:
        return a * b

    def embedding(self, tokens: Any, table: Any) -> Any:
        return tf.gather(table, tokens)

    def layer_norm(self, x: Any, gamma: Any, beta: Any) -> Any:
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, -1, keepdims=True)
        return centred * tf.math.rsqrt(variance + EPSILON) * gamma + beta

    def rms_norm(self, x: Any, gamma: Any) -> Any:
        square = tf.reduce_mean(x * x, -1, keepdims=True)
        return x * tf.math.rsqrt(square + EPSILON) * gamma

    def split_heads(self, x: Any, heads: int) -> Any:
        batch, sequence, size = x.shape
        return tf.transpose(tf.reshape(x, (batch, sequence, heads, size // heads)), (0, 2, 1, 3))

    def merge_heads(self, x: Any) -> Any:
        batch, heads, sequence, size = x.shape
        return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (batch, sequence, heads * size))

    def attention(self, q: Any, k: Any, v: Any, scale: float, causal: bool) -> Any:
        scores = tf.matmul(q, k, transpose_b=True) * scale
        if causal:
            visible = tf.linalg.band_part(tf.ones(scores.shape[-2:]), -1, 0)
            scores = scores + (1.0 - visible) * -1e9
        return tf.matmul(tf.nn.softmax(scores), v)

    def rotate(self, x: Any, cosine: Any, sine: Any) -> Any:
        first, second = tf.split(x, 2, -1)
        return tf.concat([first * cosine - second * sine, second * cosine + first * sine], -1)

    def first_token(self, x: Any) -> Any:
        return x[:, 0]


class Module(tf.Module):
    """A model whose variables a call of `step` updates."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        model = task.model
        trainable = model.trainable(task.update)
        inputs, labels = model.data(task.batch, LAYOUT)
        self._variables = {
            name: tf.Variable(
                tf.constant(array), name=name.replace(".", "_"), trainable=name in trainable
            )
            for name, array in model.arrays(LAYOUT).items()
        }
        trained = [self._variables[name] for name in trainable]
        signature = [tf.TensorSpec(a.shape, tf.as_dtype(a.dtype)) for a in (inputs, labels)]

        def step(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                logits = model.network(Net(TensorFlowOps(), self._variables), x)
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
                )
            for variable, gradient in zip(trained, tape.gradient(loss, trained), strict=True):
                if isinstance(gradient, tf.IndexedSlices):
                    moved = tf.IndexedSlices(gradient.values * model.lr, gradient.indices)
                    variable.scatter_sub(moved)
                else:
                    variable.assign_sub(gradient * model.lr)
            return {"loss": loss}

        self.step: Any = tf.function(step, input_signature=signature)
