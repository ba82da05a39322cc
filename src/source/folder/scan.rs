//! Lists and reads the folder, within limits. The only part of this module with IO.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Scan;
use crate::api::manifest::{LintReport, MAX_FILE_BYTES, Object, ParsedDocument, Problem, lint, parse_file};
use crate::model::Kind;

/// Largest number of manifests in a folder.
pub(crate) const MAX_FILES: usize = 10_000;
/// Largest total size of all manifests of a folder, in bytes.
pub(crate) const MAX_TOTAL_BYTES: u64 = 64 << 20;
/// Greatest depth of folders below the watched one.
const MAX_FOLDER_DEPTH: usize = 16;
/// Number of scans after which all files are read, whatever their timestamps: network file systems are not always
/// accurate.
const FULL_READ_EVERY: u64 = 60;

/// Properties by which a change of a file is detected without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stat {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[derive(Debug)]
struct Version {
    hash: [u8; 32],
    documents: Arc<Vec<ParsedDocument>>,
}

/// State of a file as of the last scan.
#[derive(Debug)]
struct Seen {
    stat: Option<Stat>,
    /// The accepted version.
    accepted: Option<Version>,
    /// The version read last. It must be the same in the next scan, since the file may be half-written.
    candidate: Option<Version>,
}

/// Reads a folder repeatedly and parses only changed files.
#[derive(Debug)]
pub(crate) struct FolderScan {
    folder: PathBuf,
    namespace: String,
    seen: BTreeMap<String, Seen>,
    looks: u64,
}

/// The result of listing the folder.
#[derive(Default)]
struct Listing {
    files: Vec<(String, PathBuf)>,
    problems: Vec<Problem>,
    /// True when something disappeared during the listing.
    in_motion: bool,
}

impl FolderScan {
    /// Creates a scan of a folder that was not read yet. Secrets are read from one namespace only, which is also the
    /// default namespace of Secrets.
    #[must_use]
    pub(crate) fn new(folder: PathBuf, namespace: &str) -> Self {
        Self { folder, namespace: namespace.to_owned(), seen: BTreeMap::new(), looks: 0 }
    }

    /// Scans the folder and all folders below it. Names that begin with a dot are skipped, and links are followed, so
    /// that a mounted `ConfigMap` is read through its `..data`.
    pub(crate) fn scan(&mut self) -> Scan {
        self.looks += 1;
        let full = self.looks.is_multiple_of(FULL_READ_EVERY);
        if let Err(error) = fs::read_dir(&self.folder) {
            return Scan { missing: Some(error.to_string()), ..Scan::default() };
        }
        let mut listing = Listing::default();
        list(&self.folder, "", &mut Vec::new(), &mut listing);
        let mut scan = Scan { complete: listing.problems.is_empty(), settled: !listing.in_motion, ..Scan::default() };
        let mut before = std::mem::take(&mut self.seen);
        let mut total = 0;
        listing.files.sort();
        if listing.files.len() > MAX_FILES {
            let message = format!("{} manifests; at most {MAX_FILES} are read", listing.files.len());
            listing.problems.push(Problem::of_file(".", "TooManyFiles", message));
            scan.complete = false;
            listing.files.truncate(MAX_FILES);
        }
        for (name, path) in listing.files {
            let metadata = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => metadata,
                // A folder named x.yaml was listed already; a pipe or a device is not a manifest.
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() => {
                    scan.settled = false;
                    continue;
                }
                Err(error) => {
                    scan.files.insert(name.clone(), Arc::new(vec![broken(&name, "FileUnreadable", error.to_string())]));
                    continue;
                }
            };
            total += metadata.size().min(MAX_FILE_BYTES as u64 + 1);
            if total > MAX_TOTAL_BYTES {
                let message =
                    format!("the manifests have more than {MAX_TOTAL_BYTES} bytes together; the rest is not read");
                listing.problems.push(Problem::of_file(&name, "TooManyBytes", message));
                scan.complete = false;
                break;
            }
            let mut seen = before.remove(&name).unwrap_or(Seen { stat: None, accepted: None, candidate: None });
            let stat = Stat::of(&metadata);
            let same = seen.stat == Some(stat);
            if !same || full || (seen.accepted.is_none() && seen.candidate.is_none()) {
                seen.look(&name, &path, same, &self.namespace);
                seen.stat = Some(stat);
            } else if let Some(candidate) = seen.candidate.take() {
                seen.accepted = Some(candidate);
            }
            scan.settled &= seen.candidate.is_none();
            if let Some(accepted) = &seen.accepted {
                scan.files.insert(name.clone(), Arc::clone(&accepted.documents));
            }
            self.seen.insert(name, seen);
        }
        for problem in listing.problems {
            let document = ParsedDocument { index: 0, identity: None, line: None, result: Err(vec![problem.clone()]) };
            scan.files.entry(problem.file).or_insert_with(|| Arc::new(vec![document]));
        }
        scan
    }
}

impl Seen {
    /// Reads the file. Content that differs from the previous scan becomes a candidate only.
    fn look(&mut self, name: &str, path: &Path, same: bool, namespace: &str) {
        let (hash, text) = read(path);
        let last = self.candidate.take();
        if self.accepted.as_ref().is_some_and(|accepted| accepted.hash == hash) {
            return;
        }
        match last {
            Some(last) if last.hash == hash && same => self.accepted = Some(last),
            Some(last) if last.hash == hash => self.candidate = Some(last),
            _ => {
                let documents = match text {
                    Ok(text) => with_secrets_of(namespace, name, parse_file(name, &text)),
                    Err((reason, message)) => vec![broken(name, reason, message)],
                };
                self.candidate = Some(Version { hash, documents: Arc::new(documents) });
            }
        }
    }
}

/// Sets the namespace of Secrets without one, and drops Secrets of other namespaces. Done before any object is
/// identified by name: otherwise `team` and `system/team` would be two objects with one content, and removing one would
/// remove the content of the other.
fn with_secrets_of(namespace: &str, file: &str, mut documents: Vec<ParsedDocument>) -> Vec<ParsedDocument> {
    documents.retain_mut(|document| {
        let Some(identity) = document.identity.as_mut().filter(|identity| identity.kind == Kind::Secret) else {
            return true;
        };
        let own = identity.namespace.get_or_insert_with(|| namespace.to_owned()) == namespace;
        if let Ok(Object::Secret(secret)) = &mut document.result {
            secret.namespace.clone_from(&identity.namespace);
        }
        if !own {
            tracing::info!(file, "{identity} is not read: Secrets are read from namespace {namespace}");
        }
        own
    });
    documents
}

type Text = Result<String, (&'static str, String)>;

fn read(path: &Path) -> ([u8; 32], Text) {
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    let text = match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Err(error) => Err(("FileUnreadable", error.to_string())),
        Ok(_) if bytes.len() > MAX_FILE_BYTES => {
            Err(("FileTooLarge", format!("the file has more than {MAX_FILE_BYTES} bytes; split it")))
        }
        Ok(_) => String::from_utf8(bytes).map_err(|error| {
            ("NotUtf8", format!("the file is not UTF-8 text (at byte {})", error.utf8_error().valid_up_to()))
        }),
    };
    let mut hash = Sha256::new();
    match &text {
        Ok(text) => hash.update(text.as_bytes()),
        Err((reason, message)) => {
            hash.update([0xFF]);
            hash.update(reason);
            hash.update(message);
        }
    }
    (hash.finalize().into(), text)
}

fn broken(name: &str, reason: &'static str, message: String) -> ParsedDocument {
    let problem = Problem::of_file(name, reason, message);
    ParsedDocument { index: 0, identity: None, line: None, result: Err(vec![problem]) }
}

fn is_manifest(name: &str) -> bool {
    let end = Path::new(name).extension().and_then(|end| end.to_str()).unwrap_or_default();
    ["yaml", "yml", "json"].iter().any(|known| end.eq_ignore_ascii_case(known))
}

/// Lists manifests below `folder`. `above` has the folders on the path to it, so that a link to one of them does not
/// cause a loop.
fn list(folder: &Path, prefix: &str, above: &mut Vec<(u64, u64)>, listing: &mut Listing) {
    let problem =
        |reason, message: String| Problem::of_file(if prefix.is_empty() { "." } else { prefix }, reason, message);
    let entries = match (fs::metadata(folder), fs::read_dir(folder)) {
        (Ok(metadata), Ok(entries)) => {
            let identity = (metadata.dev(), metadata.ino());
            if above.contains(&identity) {
                return;
            }
            if above.len() > MAX_FOLDER_DEPTH {
                let message = format!("folders deeper than {MAX_FOLDER_DEPTH} are not read");
                listing.problems.push(problem("FolderTooDeep", message));
                return;
            }
            above.push(identity);
            entries
        }
        (Err(error), _) | (_, Err(error)) => {
            if error.kind() == ErrorKind::NotFound {
                listing.in_motion = true;
            } else {
                listing.problems.push(problem("FolderUnreadable", error.to_string()));
            }
            return;
        }
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                listing.problems.push(problem("FolderUnreadable", error.to_string()));
                break;
            }
        };
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            if is_manifest(&name.to_string_lossy()) {
                let message = format!("the name `{}` is not UTF-8", name.to_string_lossy());
                listing.problems.push(problem("NameNotUtf8", message));
            }
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let relative = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let path = entry.path();
        let is_folder = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()),
            Ok(kind) => kind.is_dir(),
            Err(_) => false,
        };
        if is_folder {
            list(&path, &relative, above, listing);
        } else if is_manifest(name) && listing.files.len() <= MAX_FILES {
            listing.files.push((relative, path));
        }
    }
    above.pop();
}

/// Lints files and folders. The report uses the names that were passed in.
#[must_use]
pub(crate) fn lint_paths(paths: &[PathBuf]) -> LintReport {
    lint_files(&read_paths(paths))
}

/// Lints files that were read.
#[must_use]
pub(crate) fn lint_files(files: &BTreeMap<String, Vec<ParsedDocument>>) -> LintReport {
    lint(files.iter().map(|(file, documents)| (file.as_str(), documents.as_slice())))
}

/// Reads files and folders, by the names that were passed in. A file or folder that cannot be read is a document with a
/// problem.
#[must_use]
pub(crate) fn read_paths(paths: &[PathBuf]) -> BTreeMap<String, Vec<ParsedDocument>> {
    let mut files: BTreeMap<String, Vec<ParsedDocument>> = BTreeMap::new();
    for path in paths {
        let name = path.display().to_string();
        let mut listing = Listing::default();
        if path.is_dir() {
            list(path, &name, &mut Vec::new(), &mut listing);
            if listing.files.len() > MAX_FILES {
                let message = format!("more than {MAX_FILES} manifests; not all are read");
                listing.problems.push(Problem::of_file(&name, "TooManyFiles", message));
            }
        } else {
            listing.files.push((name, path.clone()));
        }
        for problem in listing.problems {
            let document = ParsedDocument { index: 0, identity: None, line: None, result: Err(vec![problem.clone()]) };
            files.entry(problem.file).or_default().push(document);
        }
        for (name, path) in listing.files {
            let documents = match read(&path).1 {
                Ok(text) => parse_file(&name, &text),
                Err((reason, message)) => vec![broken(&name, reason, message)],
            };
            files.insert(name, documents);
        }
    }
    files
}
