CREATE TABLE devices (
    device                TEXT PRIMARY KEY, -- NAMESPACE/NAME
    key                   BLOB NOT NULL,    -- SHA-256 of spki
    spki                  BLOB NOT NULL,
    sealing_key           TEXT NOT NULL,
    hardware              TEXT NOT NULL,    -- JSON
    device_set            TEXT,
    labels                TEXT NOT NULL,    -- JSON
    joined_at             INTEGER NOT NULL, -- times: milliseconds since 1970
    certificate_serial    TEXT NOT NULL,
    certificate_not_after INTEGER NOT NULL,
    revoked_at            INTEGER
) WITHOUT ROWID;
CREATE INDEX devices_by_key ON devices (key);

CREATE TABLE tokens (
    hash       BLOB PRIMARY KEY, -- SHA-256 of the token, which is nowhere
    device     TEXT,
    device_set TEXT,
    labels     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER,
    used_by    BLOB,             -- key of the device that used it
    used_as    TEXT
) WITHOUT ROWID;

CREATE TABLE requests (
    key         BLOB PRIMARY KEY,
    device      TEXT NOT NULL,
    spki        BLOB NOT NULL,
    sealing_key TEXT NOT NULL,
    hardware    TEXT NOT NULL,
    address     TEXT NOT NULL,
    asked_at    INTEGER NOT NULL,
    note        TEXT NOT NULL,   -- why it waits, when that is not plain
    state       TEXT NOT NULL,   -- pending, approved, denied
    decided_at  INTEGER,
    decided_by  TEXT,
    reason      TEXT NOT NULL,   -- of a denial
    certificate TEXT             -- PEM, when approved
) WITHOUT ROWID;
CREATE INDEX requests_by_device ON requests (device);
CREATE INDEX requests_by_state ON requests (state, address);

CREATE TABLE releases (
    id        INTEGER PRIMARY KEY,
    sequence  INTEGER UNIQUE,    -- none: refused
    source    TEXT NOT NULL,
    revision  TEXT NOT NULL,
    subject   TEXT NOT NULL,
    at        INTEGER NOT NULL,
    refused   TEXT,              -- why
    devices   INTEGER NOT NULL,
    workloads INTEGER NOT NULL,
    manifests INTEGER NOT NULL
);

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
