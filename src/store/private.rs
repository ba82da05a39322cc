//! Files that only the user that runs rolecall may read, because they contain names and addresses of people.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Read and write permission for the owner only.
pub(crate) const PRIVATE: u32 = 0o600;

/// Files that SQLite keeps next to a database. SQLite creates them with the permissions of the database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Creates an empty file that other users were never able to read. An existing file is not changed.
pub(super) fn create(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(PRIVATE).open(path).map(|_| ())
}

/// Removes the permissions of other users from a file; a missing file is skipped.
pub(crate) fn tighten(path: &Path) -> io::Result<()> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let of_others = mode & 0o077;
    if of_others == 0 {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "other users could read or write `{}`; removed their permissions", path.display());
    fs::set_permissions(path, Permissions::from_mode(PRIVATE))
}

/// Removes the permissions of other users from a database and the files next to it. A file of another owner cannot be
/// changed, which is logged.
pub(super) fn tighten_database(path: &Path) {
    let beside = BESIDE.map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    });
    for file in std::iter::once(path).chain(beside.iter().map(PathBuf::as_path)) {
        if let Err(error) = tighten(file) {
            tracing::error!(
                path = %file.display(), %error,
                "other users can read `{}` and the system does not permit rolecall to change that: give it to the user who runs \
                 rolecall and set its mode to 0600",
                file.display()
            );
        }
    }
}
