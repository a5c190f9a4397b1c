-- Identities that were taken away. A name may be joined by another key later; the key that lost it stays in here.
CREATE TABLE revoked (
    key    BLOB PRIMARY KEY, -- SHA-256 of the spki
    device TEXT NOT NULL,    -- the name that it had
    at     INTEGER NOT NULL
) WITHOUT ROWID;
INSERT OR IGNORE INTO revoked SELECT key, device, revoked_at FROM devices WHERE revoked_at IS NOT NULL;

-- Names that were revoked when nobody knew their key any more: after a restore. They come back by a token alone.
CREATE TABLE barred (
    device TEXT PRIMARY KEY,
    at     INTEGER NOT NULL
) WITHOUT ROWID;

-- Whether who asks has a certificate by this fleet's authority for this name and key.
ALTER TABLE requests ADD COLUMN vouched INTEGER NOT NULL DEFAULT 0;
