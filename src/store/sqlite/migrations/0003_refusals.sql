-- What Google refused to put into policies, and when it is tried again. member_key and role are empty for all of them.
CREATE TABLE refusals (
    reach TEXT NOT NULL, -- everywhere | project:P | kind:COLLECTION:P | a document
    member_key TEXT NOT NULL,
    role TEXT NOT NULL,
    reason TEXT NOT NULL,
    since INTEGER NOT NULL,
    probe_at INTEGER NOT NULL,
    probes INTEGER NOT NULL,
    PRIMARY KEY (reach, member_key, role)
) STRICT, WITHOUT ROWID;

-- Writes that were spent on finding out which addition of a policy is refused.
CREATE TABLE write_budgets (
    document TEXT NOT NULL PRIMARY KEY,
    since INTEGER NOT NULL,
    writes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
