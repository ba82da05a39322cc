-- The client chooses externalId, and the server does not make it unique (RFC 7643 §3.1).
DROP INDEX users_by_external_id;
CREATE INDEX users_by_external_id ON users (provider, external_id) WHERE external_id IS NOT NULL;
DROP INDEX groups_by_external_id;
CREATE INDEX groups_by_external_id ON groups (provider, external_id) WHERE external_id IS NOT NULL;
