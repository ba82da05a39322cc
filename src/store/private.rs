//! Files that only the user who runs rolecall may read: they hold people's names and addresses.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Read and write for the owner, nothing for anybody else.
pub(crate) const PRIVATE: u32 = 0o600;

/// What SQLite keeps beside a database. It gives these the permissions that the database has when they are created.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Creates an empty file that was never readable by others. One that exists stays as it is.
pub(super) fn create(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(PRIVATE).open(path).map(|_| ())
}

/// Takes the permissions of others away from a file; one that does not exist is passed over.
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
    tracing::warn!(path = %path.display(), "others could read or write `{}`; that is ended now", path.display());
    fs::set_permissions(path, Permissions::from_mode(PRIVATE))
}

/// Takes the permissions of others away from a database and from what SQLite keeps beside it. A file of another owner
/// cannot be changed, which is logged.
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
                "others can read `{}` and the system does not let rolecall change that: give it to the user who runs \
                 rolecall and set its mode to 0600",
                file.display()
            );
        }
    }
}
