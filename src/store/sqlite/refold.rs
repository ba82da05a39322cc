//! Computes the folded values of stored users and groups, when there are new ones or they are folded in another way.

use rusqlite::{Connection, params};

use crate::store::encoding::{employee_number_fold, fold_name};

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

/// Adds the folded employee numbers.
pub(super) fn employee_numbers(db: &Connection) -> rusqlite::Result<()> {
    let mut write = db.prepare("UPDATE users SET employee_number_fold = ? WHERE position = ?")?;
    let mut statement = db.prepare("SELECT position, resource FROM users WHERE resource LIKE '%employeeNumber%'")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // A damaged resource is reported when it is read; opening does not fail for it.
        let Ok(text) = row.get::<_, String>(1) else { continue };
        if let Some(number) = serde_json::from_str(&text).ok().and_then(|resource| employee_number_fold(&resource)) {
            write.execute(params![number, row.get::<_, i64>(0)?])?;
        }
    }
    Ok(())
}
