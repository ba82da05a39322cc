//! Computes the folded names of users and groups again, when the way in which they are folded has changed.

use rusqlite::{Connection, params};

use crate::store::encoding::fold_name;

/// Folds all names again. Where two of one provider become equal, the one that is folded later keeps what it had.
pub(super) fn names(db: &Connection) -> rusqlite::Result<()> {
    for (read, write) in [
        (
            "SELECT position, user_name, user_name_fold FROM users ORDER BY position",
            "UPDATE OR IGNORE users SET user_name_fold = ? WHERE position = ?",
        ),
        (
            "SELECT position, display_name, display_name_fold FROM groups ORDER BY position",
            "UPDATE OR IGNORE groups SET display_name_fold = ? WHERE position = ?",
        ),
    ] {
        let mut changed: Vec<(i64, String)> = Vec::new();
        let mut statement = db.prepare(read)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            // A damaged name is reported when it is read; opening does not fail for it.
            let (Ok(name), Ok(before)) = (row.get::<_, String>(1), row.get::<_, String>(2)) else { continue };
            let folded = fold_name(&name);
            if folded != before {
                changed.push((row.get(0)?, folded));
            }
        }
        let mut write = db.prepare(write)?;
        for (position, folded) in changed {
            write.execute(params![folded, position])?;
        }
    }
    Ok(())
}
