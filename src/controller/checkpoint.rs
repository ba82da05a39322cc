//! Checkpoints of the store, kept next to a folder of manifests. They detect a store that is new or was restored from a
//! backup, which must not be trusted about grants.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::model::{Reason, Seq};
use crate::store::private::{PRIVATE, tighten};
use crate::store::{Store, StoreError};

/// Largest checkpoint file that is read, in bytes; a complete one has about 100.
const MAX_BYTES: u64 = 4096;

/// The last state of the store that was used with the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Checkpoint {
    /// The id the store was given when it was created.
    pub(crate) store_id: Uuid,
    /// Highest observed position of the event log; it only grows, except by `rolecall store accept`.
    pub(crate) highest_seq: Seq,
    /// Highest observed position of the audit log, which also grows with grants that no directory event causes. Absent
    /// from files of older versions.
    #[serde(default)]
    pub(crate) highest_audit_seq: i64,
}

/// Result of comparing a store with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// The same store, and not behind; or no store was used with the folder yet.
    Match,
    /// Another store: claims freeze as `StoreMismatch`.
    Mismatch,
    /// The same store, but older than the checkpoint: claims freeze as `StoreRewound`.
    Rewound,
}

/// Why the checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    /// The folder of manifests has no name next to which a file could be placed.
    #[error("`{0}` has no name of its own, so no checkpoint can be kept next to it: name a folder below it")]
    NoFolderName(PathBuf),
    /// An error of the file system.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// The attempted operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is not a checkpoint. To be treated as [`Comparison::Mismatch`].
    #[error("`{path}` does not contain which store was used here: {problem}; `rolecall store accept` replaces it")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
}

impl CheckpointError {
    /// The stable reason word.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoFolderName(_) => "CheckpointPathInvalid",
            Self::Io { .. } => "CheckpointUnavailable",
            Self::Malformed { .. } => Reason::StoreMismatch.word(),
        }
    }
}

/// Creates a checkpoint of the store's current state.
///
/// # Errors
/// [`StoreError`], when it cannot be read.
pub(crate) async fn of(store: &Store) -> Result<Checkpoint, StoreError> {
    let (highest_seq, highest_audit_seq) = (store.highest_seq().await?, store.highest_audit_seq().await?);
    Ok(Checkpoint { store_id: store.id(), highest_seq, highest_audit_seq })
}

/// Compares a checkpoint with the current state of a store.
#[must_use]
pub(crate) fn compare(seen: Option<&Checkpoint>, now: &Checkpoint) -> Comparison {
    match seen {
        Some(seen) if seen.store_id != now.store_id => Comparison::Mismatch,
        Some(seen) if seen.highest_seq > now.highest_seq || seen.highest_audit_seq > now.highest_audit_seq => {
            Comparison::Rewound
        }
        Some(_) | None => Comparison::Match,
    }
}

/// The checkpoint file of a folder of manifests: `.NAME.rolecall-store.json` next to it. A folder that is a symbolic
/// link is known by the given name, so that a link that is moved to a new checkout keeps its file.
///
/// # Errors
/// [`CheckpointError::NoFolderName`] for a root, [`CheckpointError::Io`] when the working directory cannot be
/// determined.
pub(crate) fn mirror_path(manifests: &Path) -> Result<PathBuf, CheckpointError> {
    let io = |source| CheckpointError::Io { action: "resolve", path: manifests.to_owned(), source };
    let mut folder = std::path::absolute(manifests).map_err(io)?;
    if folder.file_name().is_none() {
        // Ends in `..`: only the file system knows the name.
        folder = folder.canonicalize().map_err(io)?;
    }
    let Some(name) = folder.file_name() else {
        return Err(CheckpointError::NoFolderName(manifests.to_owned()));
    };
    let mut file = std::ffi::OsString::from(".");
    file.push(name);
    file.push(".rolecall-store.json");
    Ok(folder.with_file_name(file))
}

/// The two places of a folder's checkpoint: one of them survives the loss of the other, or of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoints {
    /// Next to the folder of manifests.
    pub(crate) manifests: PathBuf,
    /// In the folder of the database, named by the path of the manifests, so that a replaced database is compared with
    /// it.
    pub(crate) database: PathBuf,
}

impl Checkpoints {
    /// The places for these manifests and this database file.
    ///
    /// # Errors
    /// Those of [`mirror_path`].
    pub(crate) fn of(manifests: &Path, database: &Path) -> Result<Self, CheckpointError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| CheckpointError::Io { action: "resolve", path, source }
        };
        let beside = mirror_path(manifests)?;
        let digest = Sha256::digest(beside.as_os_str().as_encoded_bytes());
        let head = digest.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        let database = std::path::absolute(database).map_err(io(database))?;
        Ok(Self { manifests: beside, database: database.with_file_name(format!(".rolecall-store-{head:016x}.json")) })
    }

    fn paths(&self) -> [&Path; 2] {
        [&self.manifests, &self.database]
    }

    /// Both checkpoints, where they can be read.
    #[must_use]
    pub(crate) fn found(&self) -> [Option<Checkpoint>; 2] {
        self.paths().map(|path| read(path).ok().flatten())
    }

    /// Compares both with the current state of the store; the worse result counts. A file that is not a checkpoint is a
    /// mismatch.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub(crate) fn compare(&self, now: &Checkpoint) -> Result<Comparison, CheckpointError> {
        let mut worst = Comparison::Match;
        for path in self.paths() {
            let comparison = match read(path) {
                Ok(seen) => compare(seen.as_ref(), now),
                Err(error @ CheckpointError::Malformed { .. }) => {
                    tracing::error!(reason = error.reason(), "{error}");
                    Comparison::Mismatch
                }
                Err(error) => return Err(error),
            };
            worst = match (worst, comparison) {
                (Comparison::Mismatch, _) | (_, Comparison::Mismatch) => Comparison::Mismatch,
                (Comparison::Rewound, _) | (_, Comparison::Rewound) => Comparison::Rewound,
                (Comparison::Match, Comparison::Match) => Comparison::Match,
            };
        }
        Ok(worst)
    }

    /// Writes both.
    ///
    /// # Errors
    /// The first [`CheckpointError`]; the other file is still written.
    pub(crate) fn write(&self, mirror: &Checkpoint) -> Result<(), CheckpointError> {
        let [manifests, database] = self.paths().map(|path| write(path, mirror));
        manifests.and(database)
    }

    /// Removes the permissions of other users from both.
    ///
    /// # Errors
    /// The first [`CheckpointError`].
    pub(crate) fn make_private(&self) -> Result<(), CheckpointError> {
        let [manifests, database] = self.paths().map(make_private);
        manifests.and(database)
    }
}

/// Reads the checkpoint; none when the file does not exist.
///
/// # Errors
/// [`CheckpointError::Io`], and [`CheckpointError::Malformed`] for a file that is not a checkpoint.
pub(crate) fn read(path: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    let io = |source| CheckpointError::Io { action: "read", path: path.to_owned(), source };
    let malformed = |problem: String| CheckpointError::Malformed { path: path.to_owned(), problem };
    let size = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(malformed("it is not a file".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if size > MAX_BYTES {
        return Err(malformed(format!("it has {size} bytes")));
    }
    let bytes = fs::read(path).map_err(io)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| malformed(error.to_string()))
}

/// Removes the permissions of other users from a checkpoint written by an older version.
///
/// # Errors
/// [`CheckpointError::Io`].
pub(crate) fn make_private(path: &Path) -> Result<(), CheckpointError> {
    tighten(path).map_err(|source| CheckpointError::Io { action: "make private", path: path.to_owned(), source })
}

/// Writes the checkpoint atomically: a reader sees the old or the new file, also after a power failure.
///
/// # Errors
/// [`CheckpointError::Io`]; the old file then still exists.
pub(crate) fn write(path: &Path, mirror: &Checkpoint) -> Result<(), CheckpointError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    replace(path, &beside, mirror).map_err(|source| CheckpointError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, beside: &Path, mirror: &Checkpoint) -> io::Result<()> {
    let mut text = serde_json::to_vec(mirror)?;
    text.push(b'\n');
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(beside)?;
    // A file written by root with `rolecall store accept` stays readable for the user that runs rolecall. Other users
    // are not permitted to change the owner, and do not need to.
    if let Ok(owner) = fs::metadata(path).or_else(|_| fs::metadata(path.parent().unwrap_or(path))) {
        let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
    }
    file.set_permissions(Permissions::from_mode(PRIVATE))?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(id: u128, seq: Seq) -> Checkpoint {
        Checkpoint { store_id: Uuid::from_u128(id), highest_seq: seq, highest_audit_seq: 100 }
    }

    #[test]
    fn a_folder_that_saw_no_store_matches_any() {
        assert_eq!(compare(None, &mirror(1, 0)), Comparison::Match);
        assert_eq!(compare(None, &mirror(1, 40)), Comparison::Match);
    }

    #[test]
    fn the_same_store_matches_when_it_is_not_behind() {
        assert_eq!(compare(Some(&mirror(1, 40)), &mirror(1, 40)), Comparison::Match);
        assert_eq!(compare(Some(&mirror(1, 40)), &mirror(1, 41)), Comparison::Match);
        assert_eq!(compare(Some(&mirror(1, 40)), &mirror(1, 39)), Comparison::Rewound);
    }

    #[test]
    fn a_store_that_lacks_audit_rows_is_older_although_no_event_is_missing() {
        let seen = mirror(1, 40);
        assert_eq!(compare(Some(&seen), &Checkpoint { highest_audit_seq: 99, ..seen }), Comparison::Rewound);
        assert_eq!(compare(Some(&seen), &Checkpoint { highest_audit_seq: 101, ..seen }), Comparison::Match);
    }

    #[test]
    fn a_file_without_an_audit_position_is_read_as_one_that_saw_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.json");
        fs::write(&path, "{\"storeId\":\"00000000-0000-0000-0000-000000000007\",\"highestSeq\":2}").unwrap();
        assert_eq!(read(&path).unwrap(), Some(Checkpoint { highest_audit_seq: 0, ..mirror(7, 2) }));
    }

    #[test]
    fn another_store_is_a_mismatch_however_far_it_is() {
        for seq in [0, 40, 4000] {
            assert_eq!(compare(Some(&mirror(1, 40)), &mirror(2, seq)), Comparison::Mismatch);
        }
    }

    #[test]
    fn the_file_is_next_to_the_folder_and_has_its_name() {
        assert_eq!(mirror_path(Path::new("/srv/access")).unwrap(), Path::new("/srv/.access.rolecall-store.json"));
        assert_eq!(mirror_path(Path::new("/srv/access/")).unwrap(), Path::new("/srv/.access.rolecall-store.json"));
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("access/sub");
        fs::create_dir_all(&inner).unwrap();
        let canonical = dir.path().canonicalize().unwrap();
        assert_eq!(mirror_path(&inner.join("..")).unwrap(), canonical.join(".access.rolecall-store.json"));
        assert!(matches!(mirror_path(Path::new("/")), Err(CheckpointError::NoFolderName(_))));
    }

    #[test]
    fn what_was_written_is_read_back_and_the_helper_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = mirror_path(&dir.path().join("access")).unwrap();
        assert_eq!(read(&path).unwrap(), None);
        for seq in [1, 2] {
            write(&path, &mirror(7, seq)).unwrap();
            assert_eq!(read(&path).unwrap(), Some(mirror(7, seq)));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"storeId\":\"00000000-0000-0000-0000-000000000007\",\"highestSeq\":2,\"highestAuditSeq\":100}\n"
        );
    }

    #[test]
    fn one_of_two_checkpoints_is_enough_to_detect_another_or_older_store() {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = Checkpoints::of(&dir.path().join("access"), &dir.path().join("rolecall.db")).unwrap();
        assert_eq!(mirrors, Checkpoints::of(&dir.path().join("access/"), &dir.path().join("other.db")).unwrap());
        assert_eq!(mirrors.compare(&mirror(1, 0)).unwrap(), Comparison::Match);
        mirrors.write(&mirror(7, 5)).unwrap();
        assert_eq!(mirrors.found(), [Some(mirror(7, 5)); 2]);
        for lost in [&mirrors.manifests, &mirrors.database] {
            mirrors.write(&mirror(7, 5)).unwrap();
            fs::remove_file(lost).unwrap();
            for (now, comparison) in
                [((7, 5), Comparison::Match), ((7, 4), Comparison::Rewound), ((8, 9), Comparison::Mismatch)]
            {
                assert_eq!(mirrors.compare(&mirror(now.0, now.1)).unwrap(), comparison, "{now:?}");
            }
        }
        fs::write(&mirrors.database, "shopping list").unwrap();
        assert_eq!(mirrors.compare(&mirror(7, 5)).unwrap(), Comparison::Mismatch);
    }

    #[test]
    fn nobody_else_can_read_the_checkpoint_and_an_older_one_is_made_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = mirror_path(&dir.path().join("access")).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        make_private(&path).unwrap();
        write(&path, &mirror(7, 1)).unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        // Left over from a power failure, with permissions of an older version.
        fs::write(dir.path().join(".access.rolecall-store.json.new"), "").unwrap();
        make_private(&path).unwrap();
        assert_eq!(mode(), 0o600);
        write(&path, &mirror(7, 2)).unwrap();
        assert_eq!((mode(), read(&path).unwrap()), (0o600, Some(mirror(7, 2))));
    }

    #[test]
    fn a_file_that_is_not_a_checkpoint_is_a_mismatch_and_not_an_absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.json");
        for text in ["", "{}", "[1]", "{\"storeId\":\"x\",\"highestSeq\":1}", &" ".repeat(5000)] {
            fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err();
            assert_eq!(error.reason(), "StoreMismatch", "{text} gave {error}");
            assert!(error.to_string().contains("rolecall store accept"), "{error}");
        }
        assert_eq!(read(dir.path()).unwrap_err().reason(), "StoreMismatch");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_reported_with_its_path() {
        let error = write(Path::new("/nonexistent/.a.rolecall-store.json"), &mirror(1, 1)).unwrap_err();
        assert_eq!(error.reason(), "CheckpointUnavailable");
        assert!(error.to_string().contains("/nonexistent/.a.rolecall-store.json"), "{error}");
    }
}
