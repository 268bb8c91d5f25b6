"""Drawing of a network: pycaffe's, as SVG inside a page."""

from __future__ import annotations

import re
from pathlib import Path

from markupsafe import Markup, escape

from renet.common.errors import UserError


def draw_network(prototxt: str, name: str) -> Markup | None:
    """Draw layers and blobs of a network from top to bottom, by pycaffe with Graphviz.

    Args:
        prototxt: text of a network description.
        name: what the drawing is called for those who do not see it.

    Returns:
        An <svg> at its natural size; None where the description has no layers.

    Raises:
        UserError: it is not a network, or Graphviz's program `dot` is missing.
    """
    from caffe import draw
    from caffe.proto import caffe_pb2

    from renet.runtime.prototxt import parse_prototxt, upgrade_network

    try:
        network = upgrade_network(parse_prototxt(prototxt, caffe_pb2.NetParameter(), Path(name)), Path(name))
    except UserError as error:
        raise UserError(f"not a network description: {error}") from None
    if not network.layer:
        return None
    try:
        svg = draw.draw_net(network, "TB", ext="svg").decode()
    except FileNotFoundError:
        raise UserError('Graphviz is missing: its program "dot" draws networks') from None
    svg = svg[svg.index("<svg") :]
    opening, rest = svg.split(">", 1)
    size = re.search(r'width="(\d+)pt" height="(\d+)pt"', opening)
    view = re.search(r'viewBox="[^"]*"', opening)
    assert size is not None and view is not None, "Graphviz writes both"
    # Several drawings in one page would share ids; nothing refers to them. The titles and comments repeat the texts.
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    rest = re.sub(r"<title>.*?</title>\n?|<!--.*?-->\n?", "", rest, flags=re.DOTALL)
    return Markup(
        f'<svg role="img" aria-label="{escape(f"Drawing of the network {name}")}" width="{size[1]}" '
        f'height="{size[2]}" {view[0]}>{rest}'
    )
