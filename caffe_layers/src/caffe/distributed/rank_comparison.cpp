#include "caffe/distributed/rank_comparison.hpp"

#include <omp.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iomanip>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "caffe/data/lmdb_reader.hpp"
#include "caffe/distributed/launch.hpp"
#include "caffe/gpu/gpu_precision.hpp"
#include "caffe/util/bfloat16.hpp"
#include "caffe/util/hash_bytes.hpp"

namespace caffe {

namespace {

/// Gives all ranks the text of one of them.
string TextOf(int rank, const string& own, CollectiveQueue* ranks) {
  const bool is_own = ranks->rank() == rank;
  int64_t length = is_own ? own.size() : 0;
  ranks->Sum(&length, 1);
  vector<int64_t> bytes(length);
  if (is_own) { bytes.assign(own.begin(), own.end()); }
  ranks->Sum(bytes.data(), bytes.size());
  return string(bytes.begin(), bytes.end());
}

/// A line, or that there is none any more.
string NextLine(std::istringstream* text) {
  string line;
  if (!std::getline(*text, line)) { return "nothing"; }
  const size_t first = line.find_first_not_of(' ');
  return "\"" + (first == string::npos ? "" : line.substr(first)) + "\"";
}

string DescribeDifference(const string& text, const string& of_first) {
  std::istringstream lines(text), lines_of_first(of_first);
  string line, line_of_first;
  do {
    line = NextLine(&lines);
    line_of_first = NextLine(&lines_of_first);
  } while (line == line_of_first && lines && lines_of_first);
  return line + ", not " + line_of_first;
}

string Checksum(uint64_t hash) {
  std::ostringstream text;
  text << "checksum " << std::hex << std::setw(16) << std::setfill('0') << hash;
  return text.str();
}

string DescribeFile(const string& file) {
  std::ifstream stream(file.c_str(), std::ios::binary);
  if (!stream) { return "cannot be read"; }
  const string content((std::istreambuf_iterator<char>(stream)),
      std::istreambuf_iterator<char>());
  return std::to_string(content.size()) + " bytes, " +
      Checksum(HashBytes(content.data(), content.size()));
}

/// Of a database, which may be large.
string DescribeSize(const string& file) {
  struct stat status;
  if (stat(file.c_str(), &status) != 0) { return "cannot be read"; }
  return std::to_string(status.st_size) + " bytes";
}

#ifdef USE_LMDB
void DescribeSplit(const string& folder, bool has_label, std::ostream* text) {
  for (const char* database : {"images", "labels"}) {
    const string path = folder + "/" + database + ".lmdb";
    *text << path << ": " << LmdbReader::Open(path, "comparison")->Describe()
        << "\n";
    if (!has_label) { return; }
  }
}
#endif

string DescribeData(const LayerParameter& layer) {
  std::ostringstream text;
  if (layer.type() == "SegmentationData") {
#ifdef USE_LMDB
    for (const string& folder : layer.segmentation_data_param().source()) {
      DescribeSplit(folder, layer.top_size() > 1, &text);
    }
#endif
  } else if (layer.type() == "Data") {
    const string& source = layer.data_param().source();
    text << source << ": " << DescribeSize(source + "/data.mdb") << "\n";
  } else {
    for (const string& list : {layer.image_data_param().source(),
        layer.dense_image_data_param().source(),
        layer.hdf5_data_param().source()}) {
      if (!list.empty()) { text << list << ": " << DescribeFile(list) << "\n"; }
    }
  }
  return text.str();
}

/// A line for each field, beginning with its layer.
template <typename Dtype>
string DescribeLayers(const Net<Dtype>& net) {
  std::ostringstream text;
  for (const shared_ptr<Layer<Dtype> >& layer : net.layers()) {
    std::istringstream lines(layer->layer_param().DebugString());
    string line;
    while (std::getline(lines, line)) {
      text << layer->layer_param().name() << ": "
          << line.substr(line.find_first_not_of(' ')) << "\n";
    }
  }
  return text.str();
}

string DescribeSolver(SolverParameter param) {
  param.clear_net();  // where the files lie may differ
  param.clear_train_net();
  param.clear_test_net();
  param.clear_snapshot_prefix();
  param.clear_weights();
  param.clear_device_id();
  return param.DebugString();
}

}  // namespace

string FindDifference(const string& what, const string& own,
    CollectiveQueue* ranks) {
  const uint64_t hash = HashBytes(own.data(), own.size(), own.size());
  vector<int64_t> differ(ranks->size());
  // where all have the same the sum is a multiple of it
  int64_t sum = hash;
  ranks->Sum(&sum, 1);
  differ[ranks->rank()] = static_cast<uint64_t>(sum) != hash * ranks->size();
  ranks->Sum(differ.data(), differ.size());
  if (std::count(differ.begin(), differ.end(), 0) == ranks->size()) {
    return "";
  }
  const string of_first = TextOf(0, own, ranks);
  differ.assign(ranks->size(), 0);
  differ[ranks->rank()] = own != of_first;
  ranks->Sum(differ.data(), differ.size());
  const int rank = std::find_if(differ.begin(), differ.end(),
      [](int64_t one) { return one != 0; }) - differ.begin();
  const string text = TextOf(rank, own, ranks);
  return ranks->Name(rank) + ": differs in its " + what + " from " +
      ranks->Name(0) + ": " + DescribeDifference(text, of_first);
}

template <typename Dtype>
string FindDifferenceOfData(const Net<Dtype>& net, CollectiveQueue* ranks) {
  for (const shared_ptr<Layer<Dtype> >& layer : net.layers()) {
    const LayerParameter& param = layer->layer_param();
    if (param.bottom_size() > 0) { continue; }
    const string fault = FindDifference("data of layer '" + param.name() + "'",
        DescribeData(param), ranks);
    if (!fault.empty()) { return fault; }
  }
  return "";
}

template <typename Dtype>
string FindDifference(Solver<Dtype>* solver, CollectiveQueue* ranks) {
  vector<const Net<Dtype>*> nets(1, solver->net().get());
  for (const shared_ptr<Net<Dtype> >& net : solver->test_nets()) {
    nets.push_back(net.get());
  }
  string layers;
  for (const Net<Dtype>* net : nets) { layers += DescribeLayers(*net); }
  const string processor = Caffe::mode() == Caffe::CPU
      ? string("CPU") + (AllowBfloat16() ? ", CAFFE_ALLOW_BF16=1" : "")
      : string("GPU") + (AllowTF32() ? ", CAFFE_ALLOW_TF32=1" : "");
  const std::pair<const char*, string> alike[] = {
      {"library libcaffe.so", DescribeFile(LibraryOfCaffe())},
      {"processor (-gpu)", processor},
      {"solver", DescribeSolver(solver->param())},
      {"network", layers},
      {"iteration to go on from", std::to_string(solver->iter())},
      {"number of threads (OMP_NUM_THREADS)",
          std::to_string(omp_get_max_threads())}};
  for (const auto& each : alike) {
    const string fault = FindDifference(each.first, each.second, ranks);
    if (!fault.empty()) { return fault; }
  }
  for (const Net<Dtype>* net : nets) {
    const string fault = FindDifferenceOfData(*net, ranks);
    if (!fault.empty()) { return fault; }
  }
  return "";
}

template string FindDifference(Solver<float>* solver, CollectiveQueue* ranks);
template string FindDifference(Solver<double>* solver, CollectiveQueue* ranks);
template string FindDifferenceOfData(const Net<float>& net,
    CollectiveQueue* ranks);
template string FindDifferenceOfData(const Net<double>& net,
    CollectiveQueue* ranks);

}  // namespace caffe
