-- Since when everybody for whom the grant was wanted has left, while a grant that somebody else made stays. NULL: not so.
ALTER TABLE grants ADD COLUMN left_at INTEGER;
