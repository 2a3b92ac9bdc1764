-- Requests about the disk of this server, which no transaction of the registry remembers: the latest ones.
CREATE TABLE requests (
    number INTEGER PRIMARY KEY,
    caller TEXT NOT NULL,
    id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    is_done INTEGER NOT NULL,
    answer TEXT NOT NULL,
    UNIQUE (caller, id)
);
