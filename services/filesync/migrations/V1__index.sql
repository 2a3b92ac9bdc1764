-- What this server knows of its own files. One row of meta for each single value.
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE held (
    path TEXT PRIMARY KEY,
    file_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE missing (path TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE intents (number INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE journal (staged TEXT PRIMARY KEY, verified_bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE groups (digest TEXT PRIMARY KEY, hashes BLOB NOT NULL);
CREATE TABLE uploads (id TEXT PRIMARY KEY, caller TEXT NOT NULL, size_bytes INTEGER NOT NULL) WITHOUT ROWID;
