mod diff;
mod events;
mod scan;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::manifest::parse_file;
use crate::model::Kind;
use crate::source::ResourceEvent;

/// The namespace of the operator.
const HOME: &str = "rolecall-system";

fn mapping(name: &str, group: &str) -> String {
    format!(
        "apiVersion: rolecall.dev/v1alpha1\nkind: RoleMapping\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         subjects: [{{identityProvider: okta, groups: [{{displayName: {group}}}]}}]\n  grants: [{{target: {{name: dev}}, \
         resources: [\"services/*\"], roles: [roles/run.invoker]}}]\n"
    )
}

fn provider() -> String {
    "apiVersion: rolecall.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {name: okta}\nspec:\n  scim: {tokens: [{name: a, \
     secretRef: {name: okta}}]}\n  principals: {allowedDomains: [example.com], users: {googleAccount: {attribute: \
     userName}}}\n"
        .to_owned()
}

fn reference(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::RoleMapping, Some("shop"), name)
}

fn scan(files: &[(&str, &str)]) -> Scan {
    let parsed = |(file, text): &(&str, &str)| ((*file).to_owned(), Arc::new(parse_file(file, text)));
    Scan { missing: None, complete: true, settled: true, files: files.iter().map(parsed).collect() }
}

/// Scans until nothing changes any more, as the loop does.
fn settle(known: &mut Known, scan: &Scan) -> Vec<String> {
    let mut said = Vec::new();
    for _ in 0..4 {
        said.extend(step(known, scan).iter().map(word));
    }
    assert_eq!(step(known, scan), [], "it settles");
    said
}

fn word(change: &FolderChange) -> String {
    let names = |objects: &BTreeSet<ObjectRef>| objects.iter().map(|o| o.name.clone()).collect::<Vec<_>>().join(" ");
    match change {
        FolderChange::Apply { object, file, .. } => format!("apply {} {file}", object.object_ref().name),
        FolderChange::Unreadable { file, problems, keeps } => {
            let reasons: Vec<_> = problems.iter().map(|problem| problem.reason).collect();
            format!("unreadable {file} {} keeps [{}]", reasons.join(" "), names(keeps))
        }
        FolderChange::Readable { file } => format!("readable {file}"),
        FolderChange::Deleted { object, file } => format!("delete {} {file}", object.name),
        FolderChange::Suspicious { why, missing } => format!("suspicious {why:?} [{}]", names(missing)),
        FolderChange::Healthy => "healthy".to_owned(),
        FolderChange::Loaded => "loaded".to_owned(),
    }
}

/// State after loading a folder with these files.
fn loaded(files: &[(&str, &str)]) -> Known {
    let mut known = Known::default();
    settle(&mut known, &scan(files));
    known
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

/// Scans until the files are settled.
fn look(folder: &mut FolderScan) -> Scan {
    for _ in 0..5 {
        let scan = folder.scan();
        if scan.settled || scan.missing.is_some() {
            return scan;
        }
    }
    panic!("the folder does not settle");
}
