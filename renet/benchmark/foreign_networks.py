"""Classification networks of other authors, written from their papers with Caffe's own layers, batch normalisation in
place. They have random weights: it is their speed that is measured.

For training they end in a loss, and have no Dropout: each library draws masks of its own, so that the others' gradients
would be no measure of one's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

CLASSES = 1000


class Writer:
    """A network's prototxt as it grows; each method adds layers and returns the name of the blob that they give."""

    def __init__(self, name: str, shape: Sequence[int], training: bool) -> None:
        self._lines = [f'name: "{name}"']
        self._training, self._images = training, shape[0]
        self._input("data", shape)

    def _layer(self, name: str, kind: str, bottoms: Sequence[str], rest: str = "", top: str | None = None) -> str:
        taken = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self._lines.append(f'layer {{ name: "{name}" type: "{kind}" {taken} top: "{top or name}" {rest} }}')
        return top or name

    def _input(self, name: str, shape: Sequence[int]) -> str:
        dims = " ".join(f"dim: {size}" for size in shape)
        return self._layer(name, "Input", (), f"input_param {{ shape {{ {dims} }} }}")

    def convolution(
        self,
        name: str,
        bottom: str,
        outputs: int,
        kernel: int,
        stride: int = 1,
        group: int = 1,
        normalize: bool = True,
        rectify: bool = True,
    ) -> str:
        """A convolution whose padding keeps the size, normalised and rectified in place; without `normalize`, it has a
        bias."""
        words = f"num_output: {outputs} kernel_size: {kernel} stride: {stride} pad: {kernel // 2} group: {group}"
        words += ' weight_filler { type: "msra" }' + (" bias_term: false" if normalize else "")
        top = self._layer(name, "Convolution", [bottom], f"convolution_param {{ {words} }}")
        if normalize:
            self._layer(f"{name}_bn", "BatchNorm", [top], top=top)
            self._layer(f"{name}_scale", "Scale", [top], "scale_param { bias_term: true }", top)
        return self.relu(top) if rectify else top

    def relu(self, blob: str) -> str:
        """Rectify in place."""
        return self._layer(f"{blob}_relu", "ReLU", [blob], top=blob)

    def pooling(self, name: str, bottom: str, kind: str, kernel: int, stride: int, pad: int = 0) -> str:
        """MAX or AVE."""
        words = f"pool: {kind} kernel_size: {kernel} stride: {stride} pad: {pad}"
        return self._layer(name, "Pooling", [bottom], f"pooling_param {{ {words} }}")

    def global_pooling(self, bottom: str) -> str:
        """Averages over all positions."""
        return self._layer("pool", "Pooling", [bottom], "pooling_param { pool: AVE global_pooling: true }")

    def sum(self, name: str, *bottoms: str) -> str:
        """The sum of maps."""
        return self._layer(name, "Eltwise", bottoms)

    def concatenation(self, name: str, *bottoms: str) -> str:
        """All channels of maps."""
        return self._layer(name, "Concat", bottoms)

    def lrn(self, name: str, bottom: str) -> str:
        """Normalisation over five neighbouring channels."""
        return self._layer(name, "LRN", [bottom], "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def dropout(self, blob: str, ratio: float) -> str:
        """Dropout in place; in training none."""
        if self._training:
            return blob
        return self._layer(f"{blob}_dropout", "Dropout", [blob], f"dropout_param {{ dropout_ratio: {ratio} }}", blob)

    def inner_product(self, bottom: str) -> str:
        """Scores of all classes."""
        words = f'num_output: {CLASSES} weight_filler {{ type: "xavier" }}'
        return self._layer("scores", "InnerProduct", [bottom], f"inner_product_param {{ {words} }}")

    def end(self, bottom: str, axes: int = 2) -> str:
        """Probabilities of scores with so many axes, in training the loss; the whole prototxt."""
        if self._training:
            label = self._input("label", [self._images, *[1] * (axes - 1)])
            self._layer("loss", "SoftmaxWithLoss", [bottom, label])
        else:
            self._layer("prob", "Softmax", [bottom])
        return "\n".join(self._lines) + "\n"


def resnet50(shape: Sequence[int], training: bool = False) -> str:
    """ResNet-50 (arXiv 1512.03385); the stride is in a block's first convolution, as its authors have it."""
    net = Writer("ResNet-50", shape, training)
    top = net.pooling("pool1", net.convolution("conv1", "data", 64, 7, 2), "MAX", 3, 2)
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 2):
        for block in range(blocks):
            name, stride = f"res{stage}_{block}", 2 if stage > 2 and block == 0 else 1
            shortcut = top
            if block == 0:
                shortcut = net.convolution(f"{name}_branch1", top, 4 * width, 1, stride, rectify=False)
            inner = net.convolution(f"{name}_branch2a", top, width, 1, stride)
            inner = net.convolution(f"{name}_branch2b", inner, width, 3)
            inner = net.convolution(f"{name}_branch2c", inner, 4 * width, 1, rectify=False)
            top = net.relu(net.sum(name, shortcut, inner))
    return net.end(net.inner_product(net.global_pooling(top)))


def mobilenet_v1(shape: Sequence[int], training: bool = False) -> str:
    """MobileNet of width 1 (arXiv 1704.04861)."""
    net = Writer("MobileNet v1", shape, training)
    top, channels = net.convolution("conv1", "data", 32, 3, 2), 32
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for number, (outputs, stride) in enumerate(plan, 2):
        top = net.convolution(f"conv{number}_dw", top, channels, 3, stride, group=channels)
        top, channels = net.convolution(f"conv{number}_sep", top, outputs, 1), outputs
    return net.end(net.inner_product(net.global_pooling(top)))


def mobilenet_v2(shape: Sequence[int], training: bool = False) -> str:
    """MobileNet v2 of width 1 (arXiv 1801.04381), rectified without its bound of 6, which no layer of Caffe's has."""
    net = Writer("MobileNet v2", shape, training)
    top, channels = net.convolution("conv1", "data", 32, 3, 2), 32
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (expansion, outputs, repeats, first_stride) in enumerate(plan, 2):
        for repeat in range(repeats):
            name, stride, bottom = f"conv{stage}_{repeat}", first_stride if repeat == 0 else 1, top
            wide = channels * expansion
            if expansion > 1:
                top = net.convolution(f"{name}_expand", top, wide, 1)
            top = net.convolution(f"{name}_dw", top, wide, 3, stride, group=wide)
            top = net.convolution(f"{name}_linear", top, outputs, 1, rectify=False)
            if stride == 1 and channels == outputs:
                top = net.sum(f"{name}_sum", bottom, top)
            channels = outputs
    return net.end(net.inner_product(net.global_pooling(net.convolution("conv9", top, 1280, 1))))


def googlenet(shape: Sequence[int], training: bool = False) -> str:
    """GoogLeNet (arXiv 1409.4842) without its side classifiers, which serve training alone."""
    net = Writer("GoogLeNet", shape, training)

    def convolution(name: str, bottom: str, outputs: int, kernel: int, stride: int = 1) -> str:
        return net.convolution(name, bottom, outputs, kernel, stride, normalize=False)

    top = net.pooling("pool1", convolution("conv1", "data", 64, 7, 2), "MAX", 3, 2)
    top = convolution("conv2", convolution("conv2_reduce", net.lrn("norm1", top), 64, 1), 192, 3)
    top = net.pooling("pool2", net.lrn("norm2", top), "MAX", 3, 2)
    plan = {
        "3a": (64, 96, 128, 16, 32, 32),
        "3b": (128, 128, 192, 32, 96, 64),
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
        "5a": (256, 160, 320, 32, 128, 128),
        "5b": (384, 192, 384, 48, 128, 128),
    }
    for name, (one, reduce3, three, reduce5, five, pooled) in plan.items():
        if name in ("4a", "5a"):
            top = net.pooling(f"pool{int(name[0]) - 1}", top, "MAX", 3, 2)
        branches = (
            convolution(f"{name}_1x1", top, one, 1),
            convolution(f"{name}_3x3", convolution(f"{name}_3x3_reduce", top, reduce3, 1), three, 3),
            convolution(f"{name}_5x5", convolution(f"{name}_5x5_reduce", top, reduce5, 1), five, 5),
            convolution(f"{name}_pool_proj", net.pooling(f"{name}_pool", top, "MAX", 3, 1, 1), pooled, 1),
        )
        top = net.concatenation(f"{name}_output", *branches)
    return net.end(net.inner_product(net.dropout(net.global_pooling(top), 0.4)))


def squeezenet(shape: Sequence[int], training: bool = False) -> str:
    """SqueezeNet 1.1 (arXiv 1602.07360, with its authors' later sizes)."""
    net = Writer("SqueezeNet 1.1", shape, training)

    def convolution(name: str, bottom: str, outputs: int, kernel: int, stride: int = 1) -> str:
        return net.convolution(name, bottom, outputs, kernel, stride, normalize=False)

    top = net.pooling("pool1", convolution("conv1", "data", 64, 3, 2), "MAX", 3, 2)
    for number, width in enumerate((16, 16, 32, 32, 48, 48, 64, 64), 2):
        squeezed = convolution(f"fire{number}_squeeze", top, width, 1)
        top = net.concatenation(
            f"fire{number}",
            convolution(f"fire{number}_expand1x1", squeezed, 4 * width, 1),
            convolution(f"fire{number}_expand3x3", squeezed, 4 * width, 3),
        )
        if number in (3, 5):
            top = net.pooling(f"pool{number}", top, "MAX", 3, 2)
    top = convolution("conv10", net.dropout(top, 0.5), CLASSES, 1)
    return net.end(net.global_pooling(top), axes=4)


FOREIGN: dict[str, Callable[[Sequence[int], bool], str]] = {
    "resnet50": resnet50,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "googlenet": googlenet,
    "squeezenet": squeezenet,
}
