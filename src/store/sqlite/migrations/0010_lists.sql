-- Lists by the time of the last change. The folded names of users and groups are computed again in this step.
CREATE INDEX users_by_change ON users (provider, updated_at);
CREATE INDEX groups_by_change ON groups (provider, updated_at);
