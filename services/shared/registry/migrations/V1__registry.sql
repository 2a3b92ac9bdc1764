-- The one row that every commit rewrites: whoever holds the write lock has the next revision.
CREATE TABLE meta (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL,
    revision INTEGER NOT NULL,
    chain BLOB NOT NULL,
    floor INTEGER NOT NULL,
    request_seq INTEGER NOT NULL
) STRICT;

-- The chain at every revision from the floor on, so that a position can be looked for in the history.
CREATE TABLE revisions (
    revision INTEGER NOT NULL PRIMARY KEY,
    chain BLOB NOT NULL
) STRICT;

-- What each transaction did, above the floor.
CREATE TABLE log (
    revision INTEGER NOT NULL,
    key TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    body TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    PRIMARY KEY (revision, key)
) STRICT, WITHOUT ROWID;

-- The latest of each key: live records, and tombstones that are not compacted.
CREATE TABLE records (
    key TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    body TEXT NOT NULL,
    traceparent TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Requests that were answered, by the order in which they were: forgetting never asks a clock.
CREATE TABLE requests (
    caller TEXT NOT NULL,
    id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    revision INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (caller, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX requests_by_seq ON requests (seq);

-- Beside the log: last writer wins, no revision.
CREATE TABLE notes (
    key TEXT NOT NULL PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- How far each server has come.
CREATE TABLE acks (
    server TEXT NOT NULL PRIMARY KEY,
    epoch TEXT NOT NULL,
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
