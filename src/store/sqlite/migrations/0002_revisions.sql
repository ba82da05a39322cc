-- Reads of a policy are eventually consistent: which version a read shows is told by what our own writes returned.
CREATE TABLE revisions (
    document TEXT NOT NULL PRIMARY KEY,
    etag TEXT NOT NULL, -- of the last acknowledged write
    beside TEXT NOT NULL, -- JSON array: digests of the members in its answer that were not ours
    resource_uid TEXT
) STRICT, WITHOUT ROWID;

-- Etags of older versions, for an hour.
CREATE TABLE superseded_etags (
    document TEXT NOT NULL,
    etag TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (document, etag)
) STRICT, WITHOUT ROWID;
CREATE INDEX superseded_etags_by_time ON superseded_etags (at);

ALTER TABLE grants ADD COLUMN resource_uid TEXT;
ALTER TABLE grants ADD COLUMN stored_as TEXT; -- JSON array of spellings; NULL: as it was sent
