-- What each provider has stored: memberships (those of ids that are not known yet included), and the bytes of its
-- resources. Users and groups are counted already.
ALTER TABLE counters ADD COLUMN members INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
INSERT INTO counters (provider, users, groups, members, bytes)
    SELECT provider, 0, 0, count(*), 0 FROM members GROUP BY provider
    ON CONFLICT (provider) DO UPDATE SET members = excluded.members;
INSERT INTO counters (provider, users, groups, members, bytes)
    SELECT provider, 0, 0, 0, sum(octet_length(resource)) FROM users GROUP BY provider
    ON CONFLICT (provider) DO UPDATE SET bytes = bytes + excluded.bytes;
INSERT INTO counters (provider, users, groups, members, bytes)
    SELECT provider, 0, 0, 0, sum(octet_length(resource)) FROM groups GROUP BY provider
    ON CONFLICT (provider) DO UPDATE SET bytes = bytes + excluded.bytes;
