-- Times are nanoseconds since 1970-01-01T00:00:00Z. Ids of users and groups are the 16 bytes of the UUID.
-- Every row of the directory carries its provider, and the keys by which rows refer to each other hold it too, so that
-- the schema itself keeps tenants apart.

CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Which process may write what the engine remembers: the one that took over last. One row, once somebody did.
CREATE TABLE leadership (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch INTEGER NOT NULL,
    holder TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    position INTEGER PRIMARY KEY, -- order of creation
    provider TEXT NOT NULL,
    id BLOB NOT NULL,
    active INTEGER NOT NULL,
    user_name TEXT NOT NULL,
    user_name_fold TEXT NOT NULL,
    external_id TEXT,
    emails TEXT NOT NULL,
    resource TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (provider, id),
    UNIQUE (provider, user_name_fold)
) STRICT;
CREATE UNIQUE INDEX users_by_external_id ON users (provider, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX users_in_order ON users (provider, position);

CREATE TABLE user_emails (
    user INTEGER NOT NULL REFERENCES users (position) ON DELETE CASCADE,
    value_fold TEXT NOT NULL,
    kind_fold TEXT NOT NULL,
    provider TEXT NOT NULL,
    PRIMARY KEY (user, value_fold, kind_fold)
) STRICT, WITHOUT ROWID;
CREATE INDEX user_emails_by_value ON user_emails (provider, value_fold);

CREATE TABLE groups (
    position INTEGER PRIMARY KEY,
    provider TEXT NOT NULL,
    id BLOB NOT NULL,
    display_name TEXT NOT NULL,
    display_name_fold TEXT NOT NULL,
    external_id TEXT,
    resource TEXT NOT NULL,
    member_count INTEGER NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (provider, id),
    UNIQUE (provider, display_name_fold)
) STRICT;
CREATE UNIQUE INDEX groups_by_external_id ON groups (provider, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX groups_in_order ON groups (provider, position);

-- kind: user | group | pending (an id that is not known yet)
CREATE TABLE members (
    provider TEXT NOT NULL,
    group_id BLOB NOT NULL,
    member_id BLOB NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'group', 'pending')),
    PRIMARY KEY (provider, group_id, member_id),
    FOREIGN KEY (provider, group_id) REFERENCES groups (provider, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_member ON members (provider, member_id);
CREATE INDEX members_pending ON members (provider) WHERE kind = 'pending';

-- How many there are, so that an unfiltered list knows its total without counting.
CREATE TABLE counters (
    provider TEXT NOT NULL PRIMARY KEY,
    users INTEGER NOT NULL,
    groups INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- kind: user | group
CREATE TABLE tombstones (
    provider TEXT NOT NULL,
    id BLOB NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'group')),
    deleted_at INTEGER NOT NULL,
    PRIMARY KEY (provider, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    provider TEXT NOT NULL,
    at INTEGER NOT NULL,
    change TEXT NOT NULL
) STRICT;

CREATE TABLE pins (
    mapping TEXT NOT NULL,
    provider TEXT NOT NULL,
    selector TEXT NOT NULL,
    group_id BLOB NOT NULL,
    PRIMARY KEY (mapping, provider, selector)
) STRICT, WITHOUT ROWID;

CREATE TABLE grants (
    document TEXT NOT NULL,
    role TEXT NOT NULL,
    condition_hash TEXT NOT NULL,
    member_key TEXT NOT NULL,
    member TEXT NOT NULL,
    condition TEXT,
    state TEXT NOT NULL CHECK (state IN ('wanted', 'owned', 'unowned', 'lost')),
    intent_action TEXT CHECK (intent_action IN ('grant', 'revoke')),
    intent_etag_before TEXT,
    intent_present_before INTEGER,
    intent_at INTEGER,
    intent_plan_hash TEXT,
    acknowledged_at INTEGER,
    verified_at INTEGER,
    revoking_since INTEGER,
    held INTEGER NOT NULL, -- 1: the guard held its removal since then
    PRIMARY KEY (document, role, condition_hash, member_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE claims (
    document TEXT NOT NULL,
    role TEXT NOT NULL,
    condition_hash TEXT NOT NULL,
    member_key TEXT NOT NULL,
    mapping TEXT NOT NULL,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('user', 'group')),
    subject_id BLOB NOT NULL,
    abandoned_at INTEGER, -- since then nobody waits for it to be ended; it still is to be
    PRIMARY KEY (document, role, condition_hash, member_key, mapping, subject_kind, subject_id),
    FOREIGN KEY (document, role, condition_hash, member_key)
        REFERENCES grants (document, role, condition_hash, member_key) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX claims_by_mapping ON claims (mapping);
CREATE INDEX claims_by_subject ON claims (subject_id);
CREATE INDEX claims_abandoned ON claims (mapping, document) WHERE abandoned_at IS NOT NULL;

-- Names as they were when an audit row was written. Erasing a person: name = NULL; the audit rows stand.
CREATE TABLE people (
    id INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    name TEXT,
    UNIQUE (subject, name)
) STRICT;

-- hash: SHA-256 over all columns before it, but `person`, and over the hash of the row before.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    request_id TEXT,
    cause_seqs TEXT NOT NULL,
    document TEXT,
    resource_uid TEXT,
    action TEXT NOT NULL,
    role TEXT,
    condition_hash TEXT,
    subject TEXT,
    plan_hash TEXT,
    etag_before TEXT,
    etag_after TEXT,
    outcome TEXT NOT NULL,
    reason TEXT,
    detail TEXT,
    person INTEGER, -- people.id; no foreign key, so that erasing is not tied to the size of the log
    hash TEXT NOT NULL
) STRICT;

CREATE TABLE specs (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL, -- empty for cluster-scoped kinds
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'ending', 'vanished')),
    source TEXT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) STRICT, WITHOUT ROWID;

-- What a person decided with `rolecall release`, until the running process has carried it out.
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    action TEXT NOT NULL CHECK (action IN (
        'release-mapping', 'release-manifests', 'release-plan', 'accept-store', 'uninstall-revoke', 'uninstall-orphan',
        'uninstalled'
    )),
    mapping TEXT NOT NULL, -- the hash of a plan; empty for all
    at INTEGER NOT NULL,
    UNIQUE (action, mapping)
) STRICT;
