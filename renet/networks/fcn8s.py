"""FCN-32s, FCN-16s and FCN-8s of Long, Shelhamer and Darrell."""

from __future__ import annotations

from dataclasses import dataclass

from caffe import layers as L

from renet.networks.protocol import Protocol
from renet.networks.spec import Network, Options, convolution, weights_and_free_bias
from renet.networks.vgg16 import STAGES, vgg16

PAPER = "Long, Shelhamer, Darrell, Fully Convolutional Networks for Semantic Segmentation, arXiv 1411.4038"
PROTOCOL = Protocol.of_others(
    data="Whole images at their own size, one at a time, as they are (section 4.3).",
    mirror=False,
    whole_images=True,
    interpolated=False,
    loss={"normalize": False},
    loss_comment="The sum, not the mean, over all labelled pixels of the image: hence the small rate and the large\n"
    "momentum of the solver (section 4.3).",
)
CRF_AS_RNN_PAPER = "Zheng et al., Conditional Random Fields as Recurrent Neural Networks, arXiv 1502.03240"
# In training it iterates 5 times, to keep gradients from vanishing (section 5.2), in a test 10 times.
TRAINED_CRF = {
    "max_iter": 5,
    "pos_w": 3,
    "pos_xy_std": 3,
    "bi_w": 5,
    "bi_xy_std": 160,
    "bi_rgb_std": 3,
    "normalization": "AFTER",
    "kernel_weights": "MATRIX",
    "compatibility": "MATRIX",
}
TESTED_ITERATIONS = 10
FIRST_PAD = 100
CHANNELS = 4096
FIXED = [{"lr_mult": 0, "decay_mult": 0}]
_VGG_COMMENT = (
    "VGG-16's convolutions and their weights. The padding of 100 gives images of any size a map in fc6; the crops\n"
    "below take it off again."
)


@dataclass(frozen=True)
class Fcn:
    """Variant that joins scores of so many layers. Calling it adds its layers.

    Attributes:
        stride: of the last upsampling: 32, 16 or 8.
        learned: the upsamplings but the last learn from their bilinear start. The first one then is called score2 and
            has a bias, as in CRF-as-RNN's file.
    """

    stride: int
    learned: bool = False

    def __call__(self, network: Network, options: Options) -> None:
        """Add the layers between `data` and `score`, which has the image's size."""
        stages = (STAGES[0].with_comment("conv1_1", _VGG_COMMENT), *STAGES[1:])
        vgg16(network, stages, options.frozen, FIRST_PAD)
        self._fully_connected(network, options)
        self._score(network, options, "score_fr", "Scores at 1/32 of the image, from 0 on.")
        scores, size = network.last, 32
        for pool in ("pool4", "pool3"):
            if size == self.stride:
                break
            size //= 2
            scores = self._joined(network, options, scores, pool, size)
        offset = {32: 19, 16: 27, 8: 31}[self.stride]
        name = "upscore" if self.stride == 32 else f"upscore{self.stride}"
        comment = "Bilinear interpolation to the padded image's size, of which the image's own part is cut out."
        self._upsample(network, scores, name, 2 * self.stride, comment)
        self._crop(network, "score", network.spec.data, offset)

    def _fully_connected(self, network: Network, options: Options) -> None:
        comment = (
            "VGG-16's fully connected layers as convolutions: from weights that have them\n"
            "(tools/convert_weights.py --names vgg16_fc), else Gaussian."
        )
        filler = {"type": "gaussian", "std": options.gaussian_std}
        for number, kernel in ((6, 7), (7, 1)):
            rates = weights_and_free_bias(options.new_rate)
            convolution(network, f"fc{number}", CHANNELS, kernel, filler, comment if number == 6 else "", rates)
            network.add(f"relu{number}", L.ReLU(network.last, in_place=True))
            network.add(f"drop{number}", L.Dropout(network.last, in_place=True, dropout_param={"dropout_ratio": 0.5}))

    def _score(self, network: Network, options: Options, name: str, comment: str) -> None:
        zero = {"type": "constant", "value": 0}
        convolution(network, name, network.classes, 1, zero, comment, weights_and_free_bias(options.new_rate))

    def _joined(self, network: Network, options: Options, scores: L, pool: str, size: int) -> L:
        """Bring scores to twice their size and add those of a pooling; its top."""
        first = pool == "pool4"
        name = ("score2" if self.learned else "upscore2") if first else "upscore_pool4"
        comment = "Bilinear interpolation to twice the size (section 3.3)"
        comment += (
            ", from which it learns; it has a bias, so that FCN-8s' does not fill it."
            if self.learned
            else ", which stays: each map is made of its own alone."
        )
        self._upsample(network, scores, name, 4, comment if first else "", bias=self.learned and first)
        upsampled = network.last
        network.add_on(network.spec[pool])
        self._score(network, options, f"score_{pool}", f"Scores of {pool} at 1/{size} of the image, from 0 on.")
        self._crop(network, f"score_{pool}c", upsampled, {"pool4": 5, "pool3": 9}[pool])
        return network.add(f"fuse_{pool}", L.Eltwise(upsampled, network.last))

    def _upsample(self, network: Network, scores: L, name: str, kernel: int, comment: str, bias: bool = False) -> None:
        learns = self.learned and kernel == 4
        parameter = {
            "num_output": network.classes,
            "kernel_size": [kernel],
            "stride": [kernel // 2],
            "bias_term": bias,
            "weight_filler": {"type": "bilinear"},
        }
        rates = [{"lr_mult": 1}] if learns else FIXED
        network.add(name, L.Deconvolution(scores, param=rates, convolution_param=parameter), comment)

    def _crop(self, network: Network, name: str, like: L, offset: int) -> None:
        network.add(name, L.Crop(network.last, like, crop_param={"axis": 2, "offset": [offset]}))
