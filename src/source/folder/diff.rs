//! Computes the changes of a folder, given what is in force. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{FolderChange, Known, KnownObject, Observation, Scan, ScanFailure, Suspicion};
use crate::api::manifest::{Object, ObjectRef, Problem};
use crate::model::{Kind, Reason};

/// Name used for the folder itself where a file name is expected.
const FOLDER: &str = ".";

/// The changes that follow from a scan of the folder.
///
/// - A readable document is applied, whatever else is in its file.
/// - An unreadable document or file keeps the former objects in force. It also keeps objects that disappeared at the
///   moment a completely unreadable file appeared, because they may have been moved there.
/// - Of two files with the same object the first by path counts; the second one has a problem.
/// - Missing objects are handled only when two scans in a row agree on them and no file is being written. Then they are
///   deleted, unless the folder is missing or empty or more than half of the mappings (and more than one) are missing:
///   that is suspicious, and stays so until nothing is missing any more.
#[cfg(test)]
#[must_use]
pub(crate) fn diff(known: &Known, scan: &Scan) -> Vec<FolderChange> {
    evaluate(known, scan).0
}

/// [`diff`], which also updates `known`.
pub(crate) fn step(known: &mut Known, scan: &Scan) -> Vec<FolderChange> {
    let (changes, next) = evaluate(known, scan);
    *known = next;
    changes
}

fn evaluate(known: &Known, scan: &Scan) -> (Vec<FolderChange>, Known) {
    let mut next = known.clone();
    let mut changes = Vec::new();
    let there = scan.missing.is_none();
    let missing = match &scan.missing {
        Some(error) => {
            folder_failure(error, &mut next, &mut changes);
            known.objects.keys().cloned().collect()
        }
        None => contents(known, scan, &mut next, &mut changes),
    };
    let why = if missing.is_empty() {
        None
    } else if !there {
        Some(Suspicion::FolderMissing)
    } else if scan.files.values().all(|documents| documents.is_empty()) {
        Some(Suspicion::FolderEmpty)
    } else if most_mappings(&missing, known) {
        Some(Suspicion::MostMappingsGone)
    } else {
        None
    };
    let complete = scan.complete || !there;
    let observation = Observation { why, missing, complete };
    let settled = scan.settled || !there;
    let agreed = settled && known.observed.as_ref() == Some(&observation);
    if agreed && complete {
        conclude(known, &observation, &mut next, &mut changes);
        next.problems.values_mut().for_each(|failure| failure.fresh = false);
    }
    // Where nothing is missing, a second scan has nothing to confirm.
    let certain = agreed || (settled && complete && observation.missing.is_empty());
    if certain && !known.loaded {
        next.loaded = true;
        changes.push(FolderChange::Loaded);
    }
    next.observed = settled.then_some(observation);
    (changes, next)
}

/// Processes the content of the files; returns the objects in force that no file contains.
fn contents(known: &Known, scan: &Scan, next: &mut Known, changes: &mut Vec<FolderChange>) -> BTreeSet<ObjectRef> {
    let Found { present, broken, named, mut failures } = Found::of(scan);
    let mut missing = BTreeSet::new();
    for (object, at) in known.objects.iter().filter(|(object, _)| !present.contains_key(object)) {
        let holder = if broken.contains(&at.file) { Some(&at.file) } else { named.get(object) };
        match holder.and_then(|file| failures.get_mut(file).map(|failure| (file, failure))) {
            Some((file, failure)) => {
                failure.keeps.insert(object.clone());
                move_to(next, object, file);
            }
            None => {
                missing.insert(object.clone());
            }
        }
    }
    for (file, failure) in &mut failures {
        let before = known.problems.get(file).filter(|before| before.anonymous);
        failure.fresh = failure.anonymous && before.is_none_or(|before| before.fresh);
    }
    if scan.complete && scan.settled {
        adopt(next, &mut failures, &mut missing);
    }
    apply(known, &present, next, changes);
    report(known, failures, next, changes);
    missing
}

fn folder_failure(error: &str, next: &mut Known, changes: &mut Vec<FolderChange>) {
    let problems = vec![Problem::of_file(FOLDER, "FolderMissing", format!("the folder cannot be read: {error}"))];
    if next.problems.get(FOLDER).is_none_or(|before| before.problems != problems) {
        let keeps = BTreeSet::new();
        changes.push(FolderChange::Unreadable { file: FOLDER.to_owned(), problems: problems.clone(), keeps });
        next.problems.insert(FOLDER.to_owned(), ScanFailure { problems, ..ScanFailure::default() });
    }
}

/// The documents of a scan, classified by whether they can be read.
struct Found<'a> {
    /// Readable objects, with the first file that contains each.
    present: BTreeMap<ObjectRef, (&'a str, &'a Object)>,
    /// Files with an unreadable document.
    broken: BTreeSet<String>,
    /// Objects whose document is unreadable, with its file.
    named: BTreeMap<ObjectRef, String>,
    failures: BTreeMap<String, ScanFailure>,
}

impl<'a> Found<'a> {
    fn of(scan: &'a Scan) -> Self {
        let mut found = Self {
            present: BTreeMap::new(),
            broken: BTreeSet::new(),
            named: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        for (file, documents) in &scan.files {
            for document in documents.iter() {
                match &document.result {
                    Err(problems) => {
                        found.broken.insert(file.clone());
                        let failure = found.failures.entry(file.clone()).or_default();
                        failure.problems.extend(problems.iter().cloned());
                        match &document.identity {
                            Some(object) => {
                                found.named.entry(object.clone()).or_insert_with(|| file.clone());
                            }
                            None => failure.anonymous = true,
                        }
                    }
                    Ok(object) => {
                        let identity = object.object_ref();
                        if let Some((first, _)) = found.present.get(&identity) {
                            let message =
                                format!("{identity} is defined in {first} already, which counts; remove one of them");
                            let mut problem = Problem::of_file(file, Reason::DuplicateObject.word(), message);
                            problem.line = document.line;
                            found.failures.entry(file.clone()).or_default().problems.push(problem);
                        } else {
                            found.present.insert(identity, (file, object));
                        }
                    }
                }
            }
        }
        found
    }
}

fn move_to(next: &mut Known, object: &ObjectRef, file: &str) {
    if let Some(at) = next.objects.get_mut(object)
        && at.file != file
    {
        file.clone_into(&mut at.file);
    }
}

/// Keeps objects that disappeared at the moment a completely unreadable file appeared, because they may be in it.
fn adopt(next: &mut Known, failures: &mut BTreeMap<String, ScanFailure>, missing: &mut BTreeSet<ObjectRef>) {
    if let Some((file, failure)) = failures.iter_mut().find(|(_, failure)| failure.fresh) {
        for object in std::mem::take(missing) {
            move_to(next, &object, file);
            failure.keeps.insert(object);
        }
    }
}

fn apply(
    known: &Known,
    present: &BTreeMap<ObjectRef, (&str, &Object)>,
    next: &mut Known,
    changes: &mut Vec<FolderChange>,
) {
    let mut in_order: Vec<_> = present.iter().collect();
    in_order.sort_by_key(|(identity, _)| identity.kind);
    for (identity, (file, object)) in in_order {
        let hash = object.hash();
        let now = KnownObject { file: (*file).to_owned(), hash: Some(hash) };
        if known.objects.get(identity) != Some(&now) {
            next.objects.insert(identity.clone(), now);
            let object = Box::new((*object).clone());
            changes.push(FolderChange::Apply { object, file: (*file).to_owned(), hash });
        }
    }
}

fn report(known: &Known, failures: BTreeMap<String, ScanFailure>, next: &mut Known, changes: &mut Vec<FolderChange>) {
    for (file, failure) in &failures {
        let said = |before: &ScanFailure| before.problems == failure.problems && before.keeps == failure.keeps;
        if !known.problems.get(file).is_some_and(said) {
            let (file, problems, keeps) = (file.clone(), failure.problems.clone(), failure.keeps.clone());
            changes.push(FolderChange::Unreadable { file, problems, keeps });
        }
    }
    for file in known.problems.keys().filter(|file| !failures.contains_key(*file)) {
        changes.push(FolderChange::Readable { file: file.clone() });
    }
    next.problems = failures;
}

/// True when most mappings are missing. A single one may always be deleted; otherwise the last one of a folder never
/// could.
fn most_mappings(missing: &BTreeSet<ObjectRef>, known: &Known) -> bool {
    let is_mapping = |object: &&ObjectRef| object.kind == Kind::RoleMapping;
    let gone = missing.iter().filter(is_mapping).count();
    let all = known.objects.keys().filter(is_mapping).count();
    gone > 1 && gone * 2 > all
}

/// Handles missing objects on which two scans agree.
fn conclude(known: &Known, observation: &Observation, next: &mut Known, changes: &mut Vec<FolderChange>) {
    let lasting = (known.alarm.is_some() && !observation.missing.is_empty()).then_some(Suspicion::StillMissing);
    if let Some(why) = observation.why.or(lasting) {
        let alarm = (why, observation.missing.clone());
        if known.alarm.as_ref() != Some(&alarm) {
            changes.push(FolderChange::Suspicious { why, missing: alarm.1.clone() });
        }
        next.alarm = Some(alarm);
        return;
    }
    let mut gone: Vec<_> = observation.missing.iter().collect();
    gone.sort_by_key(|object| std::cmp::Reverse(object.kind));
    for object in gone {
        if let Some(at) = next.objects.remove(object) {
            changes.push(FolderChange::Deleted { object: object.clone(), file: at.file });
        }
    }
    if next.alarm.take().is_some() {
        changes.push(FolderChange::Healthy);
    }
}
