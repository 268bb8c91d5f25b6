#include "caffe/util/layer_fusion.hpp"

#include <vector>

#include "caffe/net.hpp"

namespace caffe {

template <>
int FuseFollowers<double>(const Net<double>& /*net*/, int /*layer*/, int /*end*/) {
  return 0;
}

template <>
int FuseFollowers<float>(const Net<float>& net, int layer, int end) {
  FusingLayer* const fuses =
      dynamic_cast<FusingLayer*>(net.layers()[layer].get());
  const vector<Blob<float>*>& map = net.top_vecs()[layer];
  if (fuses == NULL || map.size() != 1 || Caffe::mode() != fuses->FusesIn()) {
    return 0;
  }
  const bool learns = fuses->FusesInTraining();
  if (net.phase() == TRAIN && !learns) { return 0; }
  Followers found, fused;
  int count = 0;
  for (int next = layer + 1; next <= end; ++next) {
    Layer<float>* const follower = net.layers()[next].get();
    if (net.bottom_vecs()[next] != map || net.top_vecs()[next] != map
        || follower->loss(0) != 0 || found.rectify) {
      break;
    }
    const LayerParameter& param = follower->layer_param();
    AffineLayer* const affine = dynamic_cast<AffineLayer*>(follower);
    if (affine != NULL && affine->IsAffine(map[0]->shape())
        && (!learns || (affine->Learns() && !found.affine))) {
      if (learns) { found.learns = affine; }
      if (!found.affine) {
        found.scale.assign(map[0]->shape(1), 1);
        found.shift.assign(map[0]->shape(1), 0);
        found.affine = true;
      }
      affine->Append(&found.scale, &found.shift);
    } else if (param.type() == "ReLU" && param.relu_param().negative_slope() == 0) {
      found.rectify = true;
    } else {
      break;
    }
    if (!fuses->CanFuse(found)) { break; }
    fused = found;
    count = next - layer;
  }
  if (count > 0) { fuses->Fuse(fused); }
  return count;
}

template <>
bool FuseBackward<double>(const Net<double>& /*net*/, int /*layer*/, int /*end*/) {
  return false;
}

template <>
bool FuseBackward<float>(const Net<float>& net, int layer, int end) {
  if (layer <= end || !net.layer_need_backward()[layer - 1]) { return false; }
  AffineLayer* const affine = dynamic_cast<AffineLayer*>(net.layers()[layer].get());
  FusingLayer* const before =
      dynamic_cast<FusingLayer*>(net.layers()[layer - 1].get());
  return affine != NULL && before != NULL && Caffe::mode() == before->FusesIn()
      && before->FuseBackward(affine, *net.top_vecs()[layer][0]);
}

}  // namespace caffe
