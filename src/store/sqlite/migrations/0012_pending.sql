-- The ids that wait in one group are counted, since their number is bounded.
DROP INDEX members_pending;
CREATE INDEX members_pending ON members (provider, group_id) WHERE kind = 'pending';
