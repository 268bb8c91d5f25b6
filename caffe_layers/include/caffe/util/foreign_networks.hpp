#ifndef CAFFE_UTIL_FOREIGN_NETWORKS_HPP_
#define CAFFE_UTIL_FOREIGN_NETWORKS_HPP_

#include <string>

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * What networks of Caffe's forks need to be read: their names of types in texts
 * of the form `layers { type: BN }`, their names of fields, and a word where a
 * type is not here.
 */

/// One line on a type that is not here: whose it is, and what serves instead.
/// Empty where nothing is known of it.
std::string ForeignLayerAdvice(const std::string& type);

/// The end of a layer whose type is not here, in one line.
std::string UnknownLayerMessage(const LayerParameter& layer);

/// The type behind a name that a fork has added to V1's enumeration; NULL where
/// it is none.
const char* ForeignV1LayerType(V1LayerParameter_LayerType type);

/// Copies the parameters of layers that forks have added to V1.
void CopyForeignV1Parameters(const V1LayerParameter& from, LayerParameter* to);

/// Whether a convolution's dilation has DeepLab's name, `hole`.
bool HasHole(const LayerParameter& layer);

/// Gives it Caffe's name; where it has both and they differ it stays as it is,
/// and what comes back says so. Else that is empty.
std::string UpgradeHole(LayerParameter* layer);

/// Whether a net has a hole that UpgradeNetHoles renames.
bool NetNeedsHoleUpgrade(const NetParameter& net);

/// UpgradeHole for all layers. LayerRegistry names those that stay.
void UpgradeNetHoles(NetParameter* net);

/// After a network's text could not be parsed: ends the program with
/// UnknownLayerMessage where it has a layer whose type is not here.
void CheckLayerTypesOfText(const std::string& file);

}  // namespace caffe

#endif  // CAFFE_UTIL_FOREIGN_NETWORKS_HPP_
