-- Differences between policies and what is wanted, so that the time of their first observation survives a restart. role and
-- member_key are empty for differences of a whole resource.
CREATE TABLE drift (
    document TEXT NOT NULL,
    kind TEXT NOT NULL,
    role TEXT NOT NULL,
    condition_hash TEXT NOT NULL,
    member_key TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    mappings TEXT NOT NULL, -- JSON: [[NAMESPACE, NAME], ...]
    subject TEXT, -- SCIM id of the user for whom the grant is claimed, or was
    PRIMARY KEY (document, kind, role, condition_hash, member_key)
) STRICT, WITHOUT ROWID;
