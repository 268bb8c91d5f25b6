#ifndef CAFFE_DATA_LMDB_READER_HPP_
#define CAFFE_DATA_LMDB_READER_HPP_

#ifdef USE_LMDB

#include <memory>
#include <string>
#include <vector>

#include "lmdb.h"

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Reads the Datums of one finished LMDB by number, from any thread.
 *
 * LMDB forbids to open one database twice in one process, and a train net and
 * its test nets often read the same one: so Open returns the reader that is
 * there already. Databases are told apart by file, not by path: a folder that
 * was replaced since is opened anew.
 *
 * Nothing is ever written, not even LMDB's lock file, so that read-only media
 * and any number of readers work; the database must not change meanwhile.
 */
class LmdbReader {
 public:
  /// The reader of the database in folder `path`. Ends the program with a
  /// message that begins with `owner` when it cannot be read.
  static std::shared_ptr<const LmdbReader> Open(const std::string& path,
      const std::string& owner);
  ~LmdbReader();

  /// All keys in LMDB's order, which is that of their bytes.
  const std::vector<std::string>& keys() const { return keys_; }

  /// Parses the value of keys()[index] into datum; false where it is no Datum.
  bool Read(size_t index, Datum* datum) const;

  /// Count and size in words, and a checksum of some values, by which copies are
  /// told apart; the same of a copy that was compacted.
  std::string Describe() const;

 private:
  LmdbReader(const std::string& path, const std::string& owner);
  LmdbReader(const LmdbReader&);
  /// A transaction for one call: one must not be used by two threads at a time,
  /// and without the lock table it costs next to nothing.
  MDB_txn* Begin() const;
  /// The value of keys()[index], in memory that is there until the end of the
  /// transaction.
  MDB_val Find(MDB_txn* transaction, size_t index) const;
  LmdbReader& operator=(const LmdbReader&);

  const std::string path_;
  MDB_env* environment_;
  MDB_dbi database_;
  std::vector<std::string> keys_;
};

}  // namespace caffe

#endif  // USE_LMDB

#endif  // CAFFE_DATA_LMDB_READER_HPP_
