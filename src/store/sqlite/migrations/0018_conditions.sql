-- The time at which a claim ends by itself, in nanoseconds since the epoch. NULL: never.
ALTER TABLE claims ADD COLUMN not_after INTEGER;

-- Refusals may concern a condition. Empty: every condition, and none.
CREATE TABLE refusals_by_condition (
    reach TEXT NOT NULL, -- everywhere | project:P | kind:COLLECTION:P | a document
    member_key TEXT NOT NULL,
    role TEXT NOT NULL,
    condition_hash TEXT NOT NULL,
    reason TEXT NOT NULL,
    since INTEGER NOT NULL,
    probe_at INTEGER NOT NULL,
    probes INTEGER NOT NULL,
    PRIMARY KEY (reach, member_key, role, condition_hash)
) STRICT, WITHOUT ROWID;
INSERT INTO refusals_by_condition
    SELECT reach, member_key, role, '', reason, since, probe_at, probes FROM refusals;
DROP TABLE refusals;
ALTER TABLE refusals_by_condition RENAME TO refusals;
