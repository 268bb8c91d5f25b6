"""PyTorch networks that compute what a prototxt describes: what Caffe's speed and results are held beside.

    work = Work(text, parse_inputs("data:1,3,375,500 label:1,1,375,500:21"), backward=True, device="cpu")
    work.run()
    work.outputs["loss"]

They are made of the modules that PyTorch's users take: what stands in several layers there and in one module here
(BatchNorm and Scale) is one module. Layers and options that are not known are told, never left out.

It needs PyTorch and the standard library, and any Python from 3.8 on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from renet.gpu_check.work import GRADIENT, Input, product

TRAIN, TEST = "TRAIN", "TEST"

# --- The prototxt ----------------------------------------------------------------------------------------------------

TOKEN = re.compile(r"""\#[^\n]* | "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | [{}\[\]:,;] | [^\s{}\[\]:,;\#"']+""", re.X)


class Message:
    """A message in text format: the values of each field in their order. It knows which fields nobody asked for."""

    def __init__(self) -> None:
        self._fields: dict[str, list[Any]] = {}
        self._asked: set[str] = set()

    def add(self, name: str, value: Any) -> None:
        """Add a value to a field."""
        self._fields.setdefault(name, []).append(value)

    def every(self, name: str) -> list[Any]:
        """All values of a field."""
        self._asked.add(name)
        return self._fields.get(name, [])

    def one(self, name: str, default: Any = None) -> Any:
        """The value of a field that has one at most.

        Raises:
            ValueError: it has several.
        """
        values = self.every(name) or [default]
        if len(values) > 1:
            raise ValueError(f"{name}: {len(values)} values, one expected")
        return values[0]

    def message(self, name: str) -> Message:
        """A message within this one; empty where there is none."""
        return self.one(name) or Message()

    def ignore(self, *names: str) -> None:
        """Leave these fields alone, with all that is in them: they do not matter here."""
        for name in names:
            self._fields.pop(name, None)

    def unasked(self) -> list[str]:
        """The fields that were neither asked for nor ignored, as `renet_param.peephole`."""
        names = []
        for name, values in self._fields.items():
            if name not in self._asked:
                names.append(name)
            for value in values if name in self._asked else ():
                names += [f"{name}.{below}" for below in value.unasked()] if isinstance(value, Message) else []
        return names


def parse(text: str) -> Message:
    """A prototxt's message.

    Raises:
        ValueError: its brackets do not match.
    """
    stack = [Message()]
    name, value_follows, within_list = "", False, False
    for token in TOKEN.findall(text):
        if token.startswith("#") or token in ",;":
            continue
        if token == "{":
            child = Message()
            stack[-1].add(name, child)
            stack.append(child)
            value_follows = within_list
        elif token == "}":
            stack.pop()
            if not stack:
                raise ValueError("the network's text closes a bracket that it did not open")
        elif token == ":":
            value_follows = True
        elif token in "[]":
            value_follows = within_list = token == "["
        elif value_follows:
            stack[-1].add(name, scalar(token))
            value_follows = within_list
        else:
            name = token
    if len(stack) > 1:
        raise ValueError("the network's text leaves a bracket open")
    return stack[0]


def scalar(token: str) -> Any:
    """A value: text, a truth value, a number, or the name of an enumeration's value."""
    if token[0] in "\"'":
        return token[1:-1]
    if token in ("true", "false"):
        return token == "true"
    for kind in (int, float):
        try:
            return kind(token)
        except ValueError:
            pass
    return token


# --- Layers ----------------------------------------------------------------------------------------------------------


class Blob(NamedTuple):
    """A parameter: the tensor that has it, and what turns Caffe's values into PyTorch's and back."""

    tensor: torch.Tensor
    convert: Callable[[torch.Tensor], torch.Tensor]


def same(values: torch.Tensor) -> torch.Tensor:
    """The values as they are."""
    return values


def reordered(rows: torch.Tensor) -> torch.Tensor:
    """Gates i, f, o, g to PyTorch's i, f, g, o, and back."""
    i, f, o, g = rows.chunk(4)
    return torch.cat([i, f, g, o])


class ReNetLSTM(torch.nn.Module):
    """One sweep of a bidirectional torch.nn.LSTM: columns (VERTICAL) or rows of patches as sequences."""

    def __init__(self, layer: Message, channels: int) -> None:
        super().__init__()
        p = layer.message("renet_param")
        p.ignore("weight_filler", "bias_filler", "forget_bias", "precision")  # the last is the whole network's here
        self._vertical = p.one("direction", "VERTICAL") == "VERTICAL"
        self._patch = p.one("patch_height", 1), p.one("patch_width", 1)
        taken = channels * self._patch[0] * self._patch[1]
        self.lstm = torch.nn.LSTM(taken, p.one("num_output"), bidirectional=True)
        self.lstm.bias_hh_l0.data.zero_()  # the layer has one bias
        self.lstm.bias_hh_l0_reverse.data.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x C x H x W to N x 2d x patches down x patches across; a view of what the LSTM gives."""
        x = self._in_patches(x)
        n, c, height, width = x.shape
        if self._vertical:
            lines = x.permute(2, 0, 3, 1).reshape(height, n * width, c)
            return self.lstm(lines)[0].reshape(height, n, width, -1).permute(1, 3, 0, 2)
        lines = x.permute(3, 0, 2, 1).reshape(width, n * height, c)
        return self.lstm(lines)[0].reshape(width, n, height, -1).permute(1, 3, 2, 0)

    def _in_patches(self, x: torch.Tensor) -> torch.Tensor:
        """Each patch's pixels as channels (channel, row, column), the last patches filled with zeros."""
        s, t = self._patch
        if s == t == 1:
            return x
        n, c, height, width = x.shape
        x = torch.nn.functional.pad(x, (0, -width % t, 0, -height % s))
        x = x.reshape(n, c, x.shape[2] // s, s, x.shape[3] // t, t)
        return x.permute(0, 1, 3, 5, 2, 4).reshape(n, c * s * t, x.shape[2], x.shape[4])

    def blobs(self) -> list[Blob]:
        """Its parameters in Caffe's order: W_x, b and W_h of the forward scan, then of the backward scan."""
        return [
            Blob(getattr(self.lstm, f"{name}_l0{suffix}"), reordered)
            for suffix in ("", "_reverse")
            for name in ("weight_ih", "bias_ih", "weight_hh")
        ]


class Layer(NamedTuple):
    """What computes a layer, the channels of what it gives, and its parameters in Caffe's order."""

    module: Callable[..., torch.Tensor]
    channels: int
    blobs: Sequence[Blob] = ()


# of torch.nn.Conv2d: its name, Caffe's, and what it is where the layer does not say
CONVOLUTION_OPTIONS = (("dilation", "dilation", 1), ("groups", "group", 1), ("bias", "bias_term", True))


def make_layer(kind: str, layer: Message, channels: Sequence[int]) -> Layer:
    """A layer of a type, by the channels of what it takes.

    Raises:
        ValueError: the type, or what it shall do, is not known here.
    """
    if kind in ("Convolution", "Deconvolution"):
        p = layer.message("convolution_param")
        p.ignore("weight_filler", "bias_filler")
        sizes = [p.one(name, default) for name, default in (("kernel_size", None), ("stride", 1), ("pad", 0))]
        make = torch.nn.Conv2d if kind == "Convolution" else torch.nn.ConvTranspose2d
        options = {name: p.one(caffes, default) for name, caffes, default in CONVOLUTION_OPTIONS}
        convolution = make(channels[0], p.one("num_output"), *sizes, **options)
        parameters = [Blob(each, same) for each in (convolution.weight, convolution.bias) if each is not None]
        return Layer(convolution, convolution.out_channels, parameters)
    if kind == "InnerProduct":
        p = layer.message("inner_product_param")
        p.ignore("weight_filler", "bias_filler")
        # of a map of 1 x 1: the sizes of others are not known before they come
        product = torch.nn.Linear(channels[0], p.one("num_output"))
        return Layer(
            lambda x: product(x.flatten(1)),
            product.out_features,
            [Blob(product.weight, same), Blob(product.bias, same)],
        )
    if kind == "ReNetLSTM":
        sweep = ReNetLSTM(layer, channels[0])
        return Layer(sweep, 2 * sweep.lstm.hidden_size, sweep.blobs())
    if kind == "Concat":
        return Layer(lambda *maps: torch.cat(maps, dim=1), sum(channels))
    return Layer(_shapeless(kind, layer, channels[0]), channels[0])


def _shapeless(kind: str, layer: Message, channels: int) -> Callable[..., torch.Tensor]:
    """What computes a layer that gives as many channels as it takes."""
    if kind == "ReLU":
        return torch.nn.ReLU(inplace=layer.one("top") == layer.one("bottom"))
    if kind == "Pooling":
        p = layer.message("pooling_param")
        name = p.one("pool", "MAX")
        if name not in ("MAX", "AVE"):
            raise ValueError(f"pooling {name}: MAX or AVE expected")
        if p.one("global_pooling", False):
            if name == "MAX":
                raise ValueError("global_pooling: AVE expected")
            return torch.nn.AdaptiveAvgPool2d(1)
        # incomplete windows at the end count, as Caffe has it
        make = torch.nn.MaxPool2d if name == "MAX" else torch.nn.AvgPool2d
        return make(p.one("kernel_size"), p.one("stride", 1), p.one("pad", 0), ceil_mode=True)
    if kind == "LRN":
        p = layer.message("lrn_param")
        return torch.nn.LocalResponseNorm(
            p.one("local_size", 5), p.one("alpha", 1.0), p.one("beta", 0.75), p.one("k", 1.0)
        )
    if kind == "Dropout":
        return torch.nn.Dropout(
            layer.message("dropout_param").one("dropout_ratio", 0.5), layer.one("top") == layer.one("bottom")
        )
    if kind == "Eltwise":
        if layer.message("eltwise_param").one("operation", "SUM") != "SUM":
            raise ValueError("an operation that is no SUM")
        return lambda first, *others: sum(others, first)
    if kind == "Crop":
        p = layer.message("crop_param")
        if p.one("axis", 2) != 2:
            raise ValueError("axis: 2 expected")
        return cropped(p.every("offset"))
    if kind == "BatchNorm":
        p = layer.message("batch_norm_param")
        momentum = 1 - p.one("moving_average_fraction", 0.999)
        return torch.nn.BatchNorm2d(channels, p.one("eps", 1e-5), momentum, affine=False)
    if kind == "BilinearInterpolation":  # corners meet corners
        resize = torch.nn.functional.interpolate
        return lambda x, like: resize(x, size=like.shape[2:], mode="bilinear", align_corners=True)
    if kind == "Softmax":
        return torch.nn.Softmax(dim=1)
    if kind == "SoftmaxWithLoss":  # the mean over all positions that have a label
        loss = torch.nn.CrossEntropyLoss(ignore_index=layer.message("loss_param").one("ignore_label", -100))
        return lambda scores, label: loss(scores, label.squeeze(1))
    raise ValueError(f"a layer of type {kind} is not known here")


def cropped(offsets: Sequence[int]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What cuts a map to another's height and width, from one offset for both or one for each on."""
    top, left = (*offsets, *offsets)[:2] if offsets else (0, 0)
    return lambda x, like: x[:, :, top : top + like.shape[2], left : left + like.shape[3]]


def take_scale(module: torch.nn.BatchNorm2d, layer: Message) -> list[Blob]:
    """Let a BatchNorm do what the Scale layer after it does, too; the Scale's parameters."""
    p = layer.message("scale_param")
    p.ignore("filler", "bias_filler")
    if not p.one("bias_term", False):
        raise ValueError("a Scale without bias_term")
    module.affine = True
    module.weight = torch.nn.Parameter(torch.ones(module.num_features))
    module.bias = torch.nn.Parameter(torch.zeros(module.num_features))
    return [Blob(module.weight, same), Blob(module.bias, same)]


# --- Networks --------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A module, the blobs that it takes and gives, and those of them that nothing takes afterwards."""

    module: Callable[..., torch.Tensor]
    bottoms: Sequence[str]
    top: str
    done_with: Sequence[str]


class PeerNetwork(torch.nn.Module):
    """The network of a prototxt, with parameters as PyTorch begins.

    Attributes:
        shapes: of the blobs that are fed, by name.
        outputs: names of the blobs that it gives.
        force_backward: whether the gradients of what is fed are wanted, too.
        blobs: its parameters by Caffe's names: `conv1_1.param0`.
    """

    def __init__(self, text: str, phase: str, inputs: Mapping[str, Sequence[int]] | None = None) -> None:
        """Make it.

        Args:
            text: the prototxt's.
            phase: TRAIN or TEST.
            inputs: shapes of blobs to feed in the place of the layers that feed them; Input layers tell their own.

        Raises:
            ValueError: it has a layer or an option that is not known here.
        """
        super().__init__()
        network = parse(text)
        self.force_backward = network.one("force_backward", False)
        self.shapes = {name: tuple(shape) for name, shape in (inputs or {}).items()}
        self.blobs: dict[str, Blob] = {}
        self._statistics: dict[str, torch.nn.BatchNorm2d] = {}
        self._modules_in_order = torch.nn.ModuleList()
        self._channels: dict[str, int] = {}
        steps: list[Step] = []
        for layer in network.every("layer"):
            rules = layer.every("include")
            if rules and phase not in [rule.one("phase") for rule in rules]:
                continue
            name = layer.one("name")
            if not layer.every("bottom"):
                self._feed(layer)
                continue
            try:
                self._add(layer, steps)
            except ValueError as error:
                raise ValueError(f"layer '{name}': {error}") from None
        self._finish(steps)
        self.train(phase == TRAIN)

    def _feed(self, layer: Message) -> None:
        tops, own = layer.every("top"), layer.message("input_param").every("shape")
        for index, top in enumerate(tops):
            if top not in self.shapes:
                if not own:
                    raise ValueError(f"layer '{layer.one('name')}': the shape of '{top}' is not given")
                self.shapes[top] = tuple(own[index if len(own) > 1 else 0].every("dim"))
            self._channels[top] = self.shapes[top][1]

    def _add(self, layer: Message, steps: list[Step]) -> None:
        name, kind, top, bottoms = *map(layer.one, ("name", "type", "top")), layer.every("bottom")
        rates = []
        for param in layer.every("param"):
            rates.append(param.one("lr_mult", 1))
            param.ignore("decay_mult")
        if kind == "Scale":
            module, step = (steps[-1].module, steps.pop()) if steps else (None, None)
            if not isinstance(module, torch.nn.BatchNorm2d) or [step.top] != bottoms or module.affine:
                raise ValueError("a Scale that follows no BatchNorm")
            made, bottoms = Layer(module, module.num_features, take_scale(module, layer)), step.bottoms
        else:
            made = make_layer(kind, layer, [self._channels[bottom] for bottom in bottoms])
            if isinstance(made.module, torch.nn.Module):
                self._modules_in_order.append(made.module)
            if kind == "BatchNorm":
                self._statistics[name] = made.module
        if layer.unasked():
            raise ValueError(f"{', '.join(layer.unasked())}: not known here")
        for index, blob in enumerate(made.blobs):
            self.blobs[f"{name}.param{index}"] = blob
            if index < len(rates) and rates[index] == 0:
                blob.tensor.requires_grad_(False)
        self._channels[top] = made.channels
        steps.append(Step(made.module, bottoms, top, ()))

    def _finish(self, steps: Sequence[Step]) -> None:
        """Tell what is given, and when each blob may go."""
        taken_later: set[str] = set()
        self.outputs: list[str] = []
        self._steps: list[Step] = []
        for step in reversed(steps):
            if step.top not in taken_later:
                self.outputs.insert(0, step.top)
            self._steps.insert(0, step._replace(done_with=sorted({*step.bottoms} - taken_later - {step.top})))
            taken_later |= {*step.bottoms}

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs; no other blob is kept for longer than it is needed."""
        blobs = dict(inputs)
        for step in self._steps:
            blobs[step.top] = step.module(*[blobs[name] for name in step.bottoms])
            for name in step.done_with:
                del blobs[name]
        return {name: blobs[name] for name in self.outputs}

    def load(self, read: Callable[[str, Sequence[int]], torch.Tensor]) -> None:
        """Take Caffe's parameters, each of which `read` gives by its name and shape."""
        with torch.no_grad():
            for name, blob in self.blobs.items():
                blob.tensor.copy_(blob.convert(read(name, blob.tensor.shape)))
            for name, module in self._statistics.items():  # sums of means and of variances, and of how many
                mean, variance = (read(f"{name}.param{i}", (module.num_features,)) for i in range(2))
                count = read(f"{name}.param2", (1,))
                share = 1 / count if count.item() else 0.0
                module.running_mean.copy_(mean * share)
                module.running_var.copy_(variance * share)


# --- Passes ----------------------------------------------------------------------------------------------------------


class Work:
    """Passes of a network over the same inputs.

    Attributes:
        network: the network.
        inputs: what is fed; labels as whole numbers.
        outputs: what the last pass gave.
    """

    def __init__(self, text: str, inputs: Sequence[Input], backward: bool, device: str) -> None:
        """Make it with random values.

        Args:
            text: the network's prototxt.
            inputs: that take the place of the layers that feed them; Input layers are fed anyhow.
            backward: forward and backward in the phase TRAIN; else forward in the phase TEST.
            device: "cuda" or "cpu".
        """
        torch.manual_seed(1)
        self._backward = backward
        self.network = PeerNetwork(text, TRAIN if backward else TEST, {each.name: each.shape for each in inputs})
        self.network.to(device)
        classes = {each.name: each.classes for each in inputs}
        self.inputs: dict[str, torch.Tensor] = {}
        for name, shape in self.network.shapes.items():
            if classes.get(name):
                self.inputs[name] = torch.randint(classes[name], shape, device=device)
            else:
                self.inputs[name] = torch.randn(shape, device=device)
                self.inputs[name].requires_grad_(backward and self.network.force_backward)
        self.outputs: dict[str, torch.Tensor] = {}
        self._diffs: dict[str, torch.Tensor | None] = {}
        self._make_diff: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, top: torch.randn_like(top)

    def run(self) -> None:
        """One pass; gradients start at none, as in every iteration of an optimizer."""
        self.outputs = {}  # what the last pass left goes before this one begins
        if not self._backward:
            with torch.inference_mode():
                self.outputs = self.network(self.inputs)
            return
        self.network.zero_grad(set_to_none=True)
        for values in self.inputs.values():
            values.grad = None
        self.outputs = self.network(self.inputs)
        for name, top in self.outputs.items():
            if name not in self._diffs:  # a loss has none: it is the beginning
                self._diffs[name] = self._make_diff(name, top).to(top) if top.dim() else None
        diffs = [None if (diff := self._diffs[name]) is None else diff.to(top) for name, top in self.outputs.items()]
        torch.autograd.backward([*self.outputs.values()], diffs)  # in the precision that an output has this time

    def load(self, folder: Path) -> None:
        """Take inputs, parameters and gradients of outputs from the files of benchmark_net -dump."""
        self.network.load(lambda name, shape: read(folder / f"{name}.data.f32", shape))
        with torch.no_grad():
            for name, values in self.inputs.items():
                values.copy_(read(folder / f"{name}.data.f32", values.shape))
        self._diffs = {}
        self._make_diff = lambda name, top: read(folder / f"{name}.diff.f32", top.shape)

    def results(self) -> dict[str, torch.Tensor]:
        """What the last pass gave, and after backward the gradients (`conv1_1.param0 gradient`), in Caffe's layout."""
        results = dict(self.outputs)
        if self._backward:
            fed = {name: Blob(values, same) for name, values in self.inputs.items()}
            for name, (tensor, convert) in {**fed, **self.network.blobs}.items():
                if tensor.grad is not None:
                    results[name + GRADIENT] = convert(tensor.grad)  # it is its own inverse
        return {name: values.detach().float() for name, values in results.items()}

    def differences(self, reference: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """The largest difference of each result to the reference's, relative to the latter's largest value."""
        differences = {}
        for name, values in self.results().items():
            expected = reference[name].to(values.device)
            difference = ((values - expected).abs().max() / expected.abs().max()).item()
            differences[name] = difference if difference == difference else float("inf")
        return differences

    def stored(self, folder: Path) -> dict[str, torch.Tensor]:
        """What benchmark_net -dump wrote of each result."""
        stored = {}
        for name, values in self.results().items():
            file = f"{name[: -len(GRADIENT)]}.diff.f32" if name.endswith(GRADIENT) else f"{name}.data.f32"
            stored[name] = read(folder / file, values.shape)
        return stored


def read(file: Path, shape: Sequence[int]) -> torch.Tensor:
    """The float32 values of a file as a tensor of `shape`.

    Raises:
        ValueError: the file has more or fewer.
    """
    count = product(shape)
    if file.stat().st_size != 4 * count:
        raise ValueError(f"{file}: {file.stat().st_size} bytes, {4 * count} expected")
    return torch.from_file(str(file), shared=False, size=count, dtype=torch.float32).reshape(tuple(shape))
