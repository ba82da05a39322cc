-- Resources of types from a file. Nothing that access depends on is in them.
CREATE TABLE resources (
    position INTEGER PRIMARY KEY, -- order of creation
    provider TEXT NOT NULL,
    kind TEXT NOT NULL, -- name of the resource type
    id BLOB NOT NULL,
    external_id TEXT,
    resource TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (provider, id)
) STRICT;
CREATE INDEX resources_in_order ON resources (provider, kind, position);
CREATE INDEX resources_by_change ON resources (provider, updated_at);
CREATE INDEX resources_by_external_id ON resources (provider, external_id) WHERE external_id IS NOT NULL;

-- The values of attributes that are unique among the resources of a type.
CREATE TABLE resource_values (
    provider TEXT NOT NULL,
    kind TEXT NOT NULL,
    attribute TEXT NOT NULL,
    value TEXT NOT NULL,
    id BLOB NOT NULL,
    PRIMARY KEY (provider, kind, attribute, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX resource_values_of ON resource_values (provider, id);
ALTER TABLE counters ADD COLUMN resources INTEGER NOT NULL DEFAULT 0;
