#ifdef USE_LMDB
#include "caffe/data/lmdb_reader.hpp"

#include <glog/logging.h>
#include <sys/stat.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace caffe {

namespace {

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

bool LmdbReader::Read(size_t index, Datum* datum) const {
  // A transaction of its own for each call: one must not be used by two threads
  // at a time, and without the lock table it costs next to nothing.
  MDB_txn* transaction;
  CHECK_EQ(mdb_txn_begin(environment_, NULL, MDB_RDONLY, &transaction),
      MDB_SUCCESS) << "Cannot read the LMDB '" << path_ << "'";
  MDB_val key, value;
  key.mv_size = keys_[index].size();
  key.mv_data = const_cast<char*>(keys_[index].data());
  const int found = mdb_get(transaction, database_, &key, &value);
  CHECK_EQ(found, MDB_SUCCESS) << "Cannot read '" << keys_[index]
      << "' of the LMDB '" << path_ << "': " << mdb_strerror(found);
  const bool parsed = datum->ParseFromArray(value.mv_data, value.mv_size);
  mdb_txn_abort(transaction);
  return parsed;
}

}  // namespace caffe

#endif  // USE_LMDB
