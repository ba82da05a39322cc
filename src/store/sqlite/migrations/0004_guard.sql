-- People whose removal the guard let pass, by scope: `mapping:NAMESPACE/NAME`, or `leavers:PROVIDER`. Rows older than an
-- hour do not count any more.
CREATE TABLE guard_removals (
    scope TEXT NOT NULL,
    subject BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (scope, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX guard_removals_by_time ON guard_removals (scope, at);

-- The scope in which the guard holds the removal of the grant for this claim, since when, and when a person let it go.
ALTER TABLE claims ADD COLUMN held_scope TEXT;
ALTER TABLE claims ADD COLUMN held_at INTEGER;
ALTER TABLE claims ADD COLUMN released_at INTEGER;
CREATE INDEX claims_held ON claims (held_scope, subject_id, held_at)
    WHERE held_scope IS NOT NULL AND released_at IS NULL;

-- The people of a mapping in the order of their ids, so that counting them need not look at every document.
DROP INDEX claims_by_mapping;
CREATE INDEX claims_by_mapping ON claims (mapping, subject_id);

-- Where the claim came from when it was last wanted: the provider of the subject, and the ids of the groups as JSON. NULL: not
-- known, as in rows of the first version until they are looked at again.
ALTER TABLE claims ADD COLUMN provider TEXT;
ALTER TABLE claims ADD COLUMN groups TEXT;
