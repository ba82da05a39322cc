-- Every version of every custom resource but Secrets. `seq` is a position of the one sequence that `events` shares.
-- uid: of the API server, or one that is generated for each life of an object of a folder. json: NULL when removed.
CREATE TABLE spec_versions (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL, -- empty for cluster-scoped kinds
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    generation INTEGER NOT NULL,
    phase TEXT NOT NULL CHECK (phase IN ('active', 'terminating', 'missing', 'removed')),
    written_by TEXT, -- field manager or file; NULL: not known
    source TEXT NOT NULL,
    json TEXT
) STRICT;
CREATE INDEX spec_versions_by_object ON spec_versions (kind, namespace, name, seq);

-- What is in force is the first version of each.
INSERT INTO spec_versions (seq, at, kind, namespace, name, uid, generation, phase, written_by, source, json)
    SELECT (SELECT coalesce(max(seq), 0) FROM events) + row_number() OVER (ORDER BY kind, namespace, name),
        unixepoch() * 1000000000, kind, namespace, name,
        coalesce(json ->> '$.metadata.uid', lower(hex(randomblob(16)))), generation,
        CASE state WHEN 'ending' THEN 'terminating' WHEN 'vanished' THEN 'missing' ELSE state END,
        NULL, source, json_remove(json, '$.status', '$.metadata.managedFields', '$.metadata.resourceVersion')
    FROM specs WHERE kind <> 'Secret' AND json_valid(json);

-- What else the catalog follows from, as changes: which group a mapping means (pin), what a target lists (resource,
-- listing), the labels of namespaces (namespace), and directories that wait to be accepted (directory).
CREATE TABLE history (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('pin', 'resource', 'listing', 'namespace', 'directory')),
    scope TEXT NOT NULL, -- mapping, target, target, namespace, provider
    name TEXT NOT NULL, -- provider and selector, document, empty, empty, empty
    value TEXT -- JSON; NULL: not so any more
) STRICT;
CREATE INDEX history_by_key ON history (kind, scope, name, seq);

INSERT INTO history (seq, at, kind, scope, name, value)
    SELECT max((SELECT coalesce(max(seq), 0) FROM events), (SELECT coalesce(max(seq), 0) FROM spec_versions))
            + row_number() OVER (ORDER BY mapping, provider, selector),
        unixepoch() * 1000000000, 'pin', mapping, provider || ' ' || selector, json_quote(lower(
            substr(hex(group_id), 1, 8) || '-' || substr(hex(group_id), 9, 4) || '-' || substr(hex(group_id), 13, 4)
            || '-' || substr(hex(group_id), 17, 4) || '-' || substr(hex(group_id), 21, 12)))
    FROM pins;

-- Which object of the mapping's name made the claim, and its generation then. NULL: not known.
ALTER TABLE claims ADD COLUMN mapping_uid TEXT;
ALTER TABLE claims ADD COLUMN generation INTEGER;

-- The first position whose catalog can be rebuilt: specs and pins of before are not known.
INSERT INTO meta (key, value) SELECT 'history_since', CAST(max(
    (SELECT coalesce(max(seq), 0) FROM events), (SELECT coalesce(max(seq), 0) FROM spec_versions),
    (SELECT coalesce(max(seq), 0) FROM history)) AS TEXT);
