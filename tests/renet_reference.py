"""The ReNet layers in NumPy float64, forward and backward, from the equations in the layers' headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def lstm(x: Array, weights: Sequence[Array], cell_output: bool) -> tuple[Array, list]:
    """One scan over x (T, B, P); weights W_x, b, W_h and, with peepholes, p. Gives the output (T, B, d) and a tape."""
    w_x, b, w_h = weights[:3]
    d = w_h.shape[1]
    p_i, p_f, p_o = weights[3] if len(weights) == 4 else np.zeros((3, d))
    h = c = np.zeros((x.shape[1], d))
    output, tape = [], []
    for x_t in x:
        a_i, a_f, a_o, a_g = np.split(x_t @ w_x.T + b + h @ w_h.T, 4, axis=1)
        i, f, g = sigmoid(a_i + p_i * c), sigmoid(a_f + p_f * c), np.tanh(a_g)
        c_new = f * c + i * g
        o = sigmoid(a_o + p_o * c_new)
        tape.append((x_t, h, c, i, f, o, g, c_new))
        h, c = o * np.tanh(c_new), c_new
        output.append(c if cell_output else h)
    return np.array(output), tape


def lstm_backward(
    output_diff: Array, tape: list, weights: Sequence[Array], cell_output: bool
) -> tuple[Array, list[Array]]:
    """The gradients of x and of every weight."""
    w_x, _, w_h = weights[:3]
    d = w_h.shape[1]
    p_i, p_f, p_o = weights[3] if len(weights) == 4 else np.zeros((3, d))
    diffs = [np.zeros_like(w) for w in weights]
    x_diff = []
    h_diff = c_diff = np.zeros_like(output_diff[0])
    for (x_t, h, c, i, f, o, g, c_new), top in zip(reversed(tape), output_diff[::-1], strict=True):
        h_diff, c_diff = (h_diff, c_diff + top) if cell_output else (h_diff + top, c_diff)
        tanh_c = np.tanh(c_new)
        a_o = h_diff * tanh_c * o * (1 - o)
        c_diff = c_diff + h_diff * o * (1 - tanh_c**2) + a_o * p_o
        a_i = c_diff * g * i * (1 - i)
        a_f = c_diff * c * f * (1 - f)
        a_g = c_diff * i * (1 - g**2)
        gates = np.concatenate([a_i, a_f, a_o, a_g], axis=1)
        diffs[0] += gates.T @ x_t
        diffs[1] += gates.sum(axis=0)
        diffs[2] += gates.T @ h
        if len(weights) == 4:
            diffs[3] += np.stack([(a_i * c).sum(axis=0), (a_f * c).sum(axis=0), (a_o * c_new).sum(axis=0)])
        x_diff.append(gates @ w_x)
        h_diff = gates @ w_h
        c_diff = c_diff * f + a_i * p_i + a_f * p_f
    return np.array(x_diff[::-1]), diffs


def gru(x: Array, weights: Sequence[Array], cell_output: bool) -> tuple[Array, list]:
    """As lstm, for gates z, r, n."""
    w_x, b, w_h = weights
    d = w_h.shape[1]
    h = np.zeros((x.shape[1], d))
    output, tape = [], []
    for x_t in x:
        a_z, a_r, a_n = np.split(x_t @ w_x.T + b, 3, axis=1)
        z, r = sigmoid(a_z + h @ w_h[:d].T), sigmoid(a_r + h @ w_h[d : 2 * d].T)
        n = np.tanh(a_n + (r * h) @ w_h[2 * d :].T)
        tape.append((x_t, h, z, r, n))
        h = (1 - z) * n + z * h
        output.append(h)
    return np.array(output), tape


def gru_backward(
    output_diff: Array, tape: list, weights: Sequence[Array], cell_output: bool
) -> tuple[Array, list[Array]]:
    """As lstm_backward."""
    w_x, _, w_h = weights
    d = w_h.shape[1]
    diffs = [np.zeros_like(w) for w in weights]
    x_diff = []
    h_diff = np.zeros_like(output_diff[0])
    for (x_t, h, z, r, n), top in zip(reversed(tape), output_diff[::-1], strict=True):
        h_diff = h_diff + top
        a_n = h_diff * (1 - z) * (1 - n**2)
        reset_diff = a_n @ w_h[2 * d :]
        a_z = h_diff * (h - n) * z * (1 - z)
        a_r = reset_diff * h * r * (1 - r)
        gates = np.concatenate([a_z, a_r, a_n], axis=1)
        diffs[0] += gates.T @ x_t
        diffs[1] += gates.sum(axis=0)
        diffs[2] += np.concatenate([a_z.T @ h, a_r.T @ h, a_n.T @ (r * h)])
        x_diff.append(gates @ w_x)
        h_diff = h_diff * z + reset_diff * r + a_z @ w_h[:d] + a_r @ w_h[d : 2 * d]
    return np.array(x_diff[::-1]), diffs


def irnn(x: Array, weights: Sequence[Array], cell_output: bool) -> tuple[Array, list]:
    """As lstm, for rectified units."""
    w_x, b, w_h = weights
    h = np.zeros((x.shape[1], w_h.shape[1]))
    output, tape = [], []
    for x_t in x:
        total = x_t @ w_x.T + b + h @ w_h.T
        tape.append((x_t, h, total > 0))
        h = np.maximum(0, total)
        output.append(h)
    return np.array(output), tape


def irnn_backward(
    output_diff: Array, tape: list, weights: Sequence[Array], cell_output: bool
) -> tuple[Array, list[Array]]:
    """As lstm_backward."""
    w_x, _, w_h = weights
    diffs = [np.zeros_like(w) for w in weights]
    x_diff = []
    h_diff = np.zeros_like(output_diff[0])
    for (x_t, h, active), top in zip(reversed(tape), output_diff[::-1], strict=True):
        gates = (h_diff + top) * active
        diffs[0] += gates.T @ x_t
        diffs[1] += gates.sum(axis=0)
        diffs[2] += gates.T @ h
        x_diff.append(gates @ w_x)
        h_diff = gates @ w_h
    return np.array(x_diff[::-1]), diffs


SCANS = {"ReNetLSTM": (lstm, lstm_backward), "ReNetGRU": (gru, gru_backward), "ReNetIRNN": (irnn, irnn_backward)}


@dataclass
class ReNetReference:
    """One layer: both scans along one axis."""

    unit: str
    vertical: bool
    patch: tuple[int, int] = (1, 1)
    cell_output: bool = False

    def _sequences(self, x: Array) -> Array:
        """(N, C, H, W) to sequences of patches (T, lines * N, P)."""
        s, t = self.patch
        n, c, height, width = x.shape
        x = np.pad(x, ((0, 0), (0, 0), (0, -height % s), (0, -width % t)))
        self._grid = x.shape[2] // s, x.shape[3] // t
        x = x.reshape(n, c, self._grid[0], s, self._grid[1], t).transpose(2, 4, 0, 1, 3, 5)
        x = x if self.vertical else x.swapaxes(0, 1)
        return x.reshape(x.shape[0], -1, c * s * t)

    def _map(self, sequences: Array, channels: int, s: int, t: int, n: int) -> Array:
        """The way back: (T, lines * N, channels * s * t) to (N, channels, h * s, w * t)."""
        h, w = self._grid
        x = sequences.reshape(*((h, w) if self.vertical else (w, h)), n, channels, s, t)
        x = x if self.vertical else x.swapaxes(0, 1)
        return x.transpose(2, 3, 0, 4, 1, 5).reshape(n, channels, h * s, w * t)

    def forward(self, bottom: Array, parameters: Sequence[Array]) -> Array:
        """The top of the layer, channels [forward d | backward d]."""
        self._shape = bottom.shape
        half = len(parameters) // 2
        self._weights = parameters[:half], parameters[half:]
        scan, _ = SCANS[self.unit]
        x = self._sequences(bottom)
        down, tape_down = scan(x, self._weights[0], self.cell_output)
        up, tape_up = scan(x[::-1], self._weights[1], self.cell_output)
        self._tapes = tape_down, tape_up
        top = np.concatenate([down, up[::-1]], axis=2)
        return self._map(top, top.shape[2], 1, 1, len(bottom))

    def backward(self, top_diff: Array) -> tuple[Array, list[Array]]:
        """The gradients of the bottom and of every parameter."""
        _, scan_backward = SCANS[self.unit]
        n, c, height, width = self._shape
        channels = top_diff.shape[1]
        diff = top_diff.transpose(2, 3, 0, 1) if self.vertical else top_diff.transpose(3, 2, 0, 1)
        diff = diff.reshape(diff.shape[0], -1, channels)
        down, up = diff[..., : channels // 2], diff[::-1, :, channels // 2 :]
        x_down, diffs_down = scan_backward(down, self._tapes[0], self._weights[0], self.cell_output)
        x_up, diffs_up = scan_backward(up, self._tapes[1], self._weights[1], self.cell_output)
        bottom_diff = self._map(x_down + x_up[::-1], c, *self.patch, n)[:, :, :height, :width]
        return bottom_diff, diffs_down + diffs_up
