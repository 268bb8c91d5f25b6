#ifdef USE_LMDB
#include "caffe/data/lmdb_reader.hpp"

#include <glog/logging.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <utility>

#include "caffe/util/hash_bytes.hpp"

namespace caffe {

namespace {

const size_t VALUES_LOOKED_AT = 16;

typedef std::pair<dev_t, ino_t> FileIdentity;

struct Registry {
  std::mutex mutex;
  std::map<FileIdentity, std::weak_ptr<const LmdbReader> > readers;
};

// Never destroyed: a layer may outlive the program's static objects.
Registry& OpenReaders() {
  static Registry* registry = new Registry();
  return *registry;
}

}  // namespace

std::shared_ptr<const LmdbReader> LmdbReader::Open(const std::string& path,
    const std::string& owner) {
  struct stat status;
  CHECK_EQ(stat((path + "/data.mdb").c_str(), &status), 0) << owner
      << ": there is no LMDB '" << path << "'; expected a folder that holds"
      << " data.mdb, as the converters in data_prep write it";
  const FileIdentity identity(status.st_dev, status.st_ino);
  Registry& registry = OpenReaders();
  std::lock_guard<std::mutex> lock(registry.mutex);
  std::weak_ptr<const LmdbReader>& known = registry.readers[identity];
  std::shared_ptr<const LmdbReader> reader = known.lock();
  if (!reader) {
    reader.reset(new LmdbReader(path, owner));
    known = reader;
  }
  return reader;
}

LmdbReader::LmdbReader(const std::string& path, const std::string& owner)
    : path_(path), environment_(NULL) {
  CHECK_EQ(mdb_env_create(&environment_), MDB_SUCCESS);
  const int opened = mdb_env_open(environment_, path.c_str(),
      MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0664);
  CHECK_EQ(opened, MDB_SUCCESS) << owner << ": cannot open the LMDB '" << path
      << "': " << mdb_strerror(opened);
  MDB_txn* transaction;
  MDB_cursor* cursor;
  CHECK_EQ(mdb_txn_begin(environment_, NULL, MDB_RDONLY, &transaction),
      MDB_SUCCESS) << owner << ": cannot read the LMDB '" << path << "'";
  CHECK_EQ(mdb_dbi_open(transaction, NULL, 0, &database_), MDB_SUCCESS)
      << owner << ": cannot read the LMDB '" << path << "'";
  CHECK_EQ(mdb_cursor_open(transaction, database_, &cursor), MDB_SUCCESS)
      << owner << ": cannot read the LMDB '" << path << "'";
  MDB_val key, value;
  int found;
  while ((found = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))
      == MDB_SUCCESS) {
    keys_.push_back(
        std::string(static_cast<const char*>(key.mv_data), key.mv_size));
  }
  CHECK_EQ(found, MDB_NOTFOUND) << owner << ": cannot read the keys of the"
      << " LMDB '" << path << "': " << mdb_strerror(found);
  mdb_cursor_close(cursor);
  // The handle outlives its transaction only if that is committed.
  CHECK_EQ(mdb_txn_commit(transaction), MDB_SUCCESS);
}

LmdbReader::~LmdbReader() {
  mdb_env_close(environment_);
}

MDB_txn* LmdbReader::Begin() const {
  MDB_txn* transaction;
  CHECK_EQ(mdb_txn_begin(environment_, NULL, MDB_RDONLY, &transaction),
      MDB_SUCCESS) << "Cannot read the LMDB '" << path_ << "'";
  return transaction;
}

MDB_val LmdbReader::Find(MDB_txn* transaction, size_t index) const {
  MDB_val key, value;
  key.mv_size = keys_[index].size();
  key.mv_data = const_cast<char*>(keys_[index].data());
  const int found = mdb_get(transaction, database_, &key, &value);
  CHECK_EQ(found, MDB_SUCCESS) << "Cannot read '" << keys_[index]
      << "' of the LMDB '" << path_ << "': " << mdb_strerror(found);
  return value;
}

bool LmdbReader::Read(size_t index, Datum* datum) const {
  MDB_txn* const transaction = Begin();
  const MDB_val value = Find(transaction, index);
  const bool parsed = datum->ParseFromArray(value.mv_data, value.mv_size);
  mdb_txn_abort(transaction);
  return parsed;
}

std::string LmdbReader::Describe() const {
  MDB_txn* const transaction = Begin();
  MDB_stat size;
  CHECK_EQ(mdb_stat(transaction, database_, &size), MDB_SUCCESS);
  uint64_t hash = 0;
  const size_t count = keys_.size();
  for (size_t i = 0; i < std::min(count, VALUES_LOOKED_AT); ++i) {
    const MDB_val value =
        Find(transaction, i * count / std::min(count, VALUES_LOOKED_AT));
    hash = HashBytes(value.mv_data, value.mv_size, hash);
  }
  mdb_txn_abort(transaction);
  std::ostringstream text;
  text << count << " entries on " << size.ms_leaf_pages + size.ms_overflow_pages
      << " pages, checksum " << std::hex << hash;
  return text.str();
}

}  // namespace caffe

#endif  // USE_LMDB
